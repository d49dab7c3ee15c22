"""Installs the agent: `python -m pip install .` (a copied tree needs no installation: bin/envio runs where it lies).

Works with setuptools 36.8, the last for Python 2.6, as with the newest.
"""

import io
import os
import re

from setuptools import setup

HERE = os.path.dirname(os.path.abspath(__file__))


def read(name):
    with io.open(os.path.join(HERE, name), encoding='utf-8') as page:
        return page.read()


def version():
    # Read, not imported: a build may run on another Python than the agent will.
    return str(re.search(r"(?m)^__version__ = '([^']+)'", read(os.path.join('agent', '__init__.py'))).group(1))


setup(
    name='envio',
    version=version(),
    description='Sends the files of a spool folder by HTTP POST, and files them by the answer',
    long_description=read('README.md') if os.path.exists(os.path.join(HERE, 'README.md')) else '',
    long_description_content_type='text/markdown',
    author='the Envio authors',
    license='MIT',
    packages=['agent'],
    package_data={'agent': ['examples/*']},
    zip_safe=False,
    entry_points={'console_scripts': ['envio = agent.cli:main']},
    python_requires='>=2.6, !=3.0.*, !=3.1.*, !=3.2.*, !=3.3.*, !=3.4.*, !=3.5.*',
)
