"""The peer that most Python programs would be: requests, a pool of threads, a session each.

    peer_requests.py FOLDER URL WORKERS [CA]: PUT each file of FOLDER to URL/NAME, then move it to FOLDER/sent.
"""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import requests

SMALL = 1 << 20  # bytes: larger files are streamed
sessions = threading.local()


def session():
    if not hasattr(sessions, 'own'):
        sessions.own = requests.Session()
        sessions.own.verify = sys.argv[4] if sys.argv[4:] else True
    return sessions.own


def send(name):
    folder, url = sys.argv[1:3]
    path = os.path.join(folder, name)
    with open(path, 'rb') as stream:
        body = stream if os.path.getsize(path) > SMALL else stream.read()
        session().put('%s/%s' % (url, name), data=body).raise_for_status()
    os.rename(path, os.path.join(folder, 'sent', name))


def main():
    folder, workers = sys.argv[1], int(sys.argv[3])
    os.makedirs(os.path.join(folder, 'sent'), exist_ok=True)
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file()]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(send, names))


if __name__ == '__main__':
    main()
