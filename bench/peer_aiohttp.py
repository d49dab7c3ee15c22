"""The peer of asyncio: aiohttp, one session, as many tasks as workers.

    peer_aiohttp.py FOLDER URL WORKERS [CA]: PUT each file of FOLDER to URL/NAME, then move it to FOLDER/sent.
"""

import asyncio
import os
import ssl
import sys

import aiohttp

SMALL = 1 << 20  # bytes: larger files are streamed


async def work(session, names, folder, url):
    for name in names:  # one iterator for all tasks: each takes the next name
        path = os.path.join(folder, name)
        with open(path, 'rb') as stream:
            body = stream if os.path.getsize(path) > SMALL else stream.read()
            async with session.put('%s/%s' % (url, name), data=body) as answer:
                answer.raise_for_status()
                await answer.read()
        os.rename(path, os.path.join(folder, 'sent', name))


async def main():
    folder, url, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.makedirs(os.path.join(folder, 'sent'), exist_ok=True)
    with os.scandir(folder) as entries:
        names = iter([entry.name for entry in entries if entry.is_file()])
    secure = ssl.create_default_context(cafile=sys.argv[4]) if sys.argv[4:] else True
    connector = aiohttp.TCPConnector(limit=workers, ssl=secure)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)) as session:
        await asyncio.gather(*[work(session, names, folder, url) for _ in range(workers)])


if __name__ == '__main__':
    asyncio.run(main())
