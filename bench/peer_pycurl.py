"""The peer that is libcurl from Python: pycurl's multi interface, a handle for each worker, used again.

    peer_pycurl.py FOLDER URL WORKERS [CA]: PUT each file of FOLDER to URL/NAME, then move it to FOLDER/sent.
"""

import os
import sys

import pycurl


def handle():
    curl = pycurl.Curl()
    curl.setopt(pycurl.UPLOAD, 1)
    curl.setopt(pycurl.FAILONERROR, 1)
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.HTTPHEADER, ['Expect:'])
    curl.setopt(pycurl.WRITEFUNCTION, len)
    if sys.argv[4:]:
        curl.setopt(pycurl.CAINFO, sys.argv[4])
    return curl


def begin(curl, folder, url, name):
    curl.name = name
    curl.stream = open(os.path.join(folder, name), 'rb')
    curl.setopt(pycurl.URL, '%s/%s' % (url, name))
    curl.setopt(pycurl.READDATA, curl.stream)
    curl.setopt(pycurl.INFILESIZE_LARGE, os.fstat(curl.stream.fileno()).st_size)


def finished(multi):
    """Return the handles that are done; ends the program when one failed."""
    queued, done, failed = multi.info_read()
    if failed:
        sys.exit('%s: %s' % (failed[0][0].name, failed[0][2]))
    return done + finished(multi) if queued else done


def main():
    folder, url, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.makedirs(os.path.join(folder, 'sent'), exist_ok=True)
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file()]
    multi = pycurl.CurlMulti()
    free, busy = [handle() for _ in range(workers)], 0
    while names or busy:
        while names and free:
            curl = free.pop()
            begin(curl, folder, url, names.pop())
            multi.add_handle(curl)
            busy += 1
        while multi.perform()[0] == pycurl.E_CALL_MULTI_PERFORM:
            pass
        done = finished(multi)
        for curl in done:
            multi.remove_handle(curl)
            curl.stream.close()
            os.rename(os.path.join(folder, curl.name), os.path.join(folder, 'sent', curl.name))
        free += done
        busy -= len(done)
        if busy and not done:
            multi.select(1.0)


if __name__ == '__main__':
    main()
