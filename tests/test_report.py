"""`envio report --html`: what stands on the page, that none of it is others' HTML, and what a browser makes of it."""

import os
import re
import stat
import subprocess
import time

import pytest

from agent import cli, report
from tests.programs import find
from tests.test_requeue import Desk

NOW = 1790000000.0  # 2026-09-21 14:13:20 UTC


@pytest.fixture
def desk(tmpdir, capsys):
    return Desk(tmpdir, capsys)


def line(hours_ago, verdict, name='a.json'):
    when = time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(NOW - hours_ago * 3600))
    return '{"attempts":1,"file":"%s","receiver":"orders","time":"%s","verdict":"%s"}\n' % (name, when, verdict)


def journal(desk, *lines):
    path = os.path.join(desk.folder, 'journal')
    with open(path, 'w') as stream:
        stream.write(''.join(lines))
    desk.configure('http://127.0.0.1:9/in', agent='journal = %s\n' % path)
    return path


def page(desk):
    code, out, err = desk.run('report', '--html', '-')
    assert (code, err) == (0, '')
    return out


def cells(html, title):
    """Return the rows of the table under a heading, as lists of texts."""
    part = html.split('<h2>%s</h2>' % title)[1].split('<h2>')[0]
    rows = [re.findall(r'(?s)<t[hd][^>]*>(.*?)</t[hd]>', row) for row in re.findall(r'(?s)<tr>.*?</tr>', part)]
    return [[re.sub(r'<[^>]*>', '', cell) for cell in row] for row in rows]


def test_what_waits_what_was_rejected_and_how_receivers_are(desk):
    desk.put('w1.json', 'w2.txt')
    desk.reject('r.json')
    html = page(desk)
    assert 'WARNING: 1 file without a receiver, the oldest for 0.0 s; 1 rejected file in error/' in html
    assert 'agent not running' in html
    assert cells(html, 'Receivers')[1][:3] == ['orders', 'CLOSED', '1']
    assert cells(html, 'Receivers')[2][:3] == ['no receiver', 'see envio route', '1']
    assert [row[:2] for row in cells(html, 'Rejected')] == [['File', 'Receiver'], ['r.json', 'orders']]
    assert sorted([row[:2] for row in cells(html, 'Waiting longest')[1:]]) == [['w1.json', 'orders'], ['w2.txt', '-']]


def test_the_hours_are_counted_from_the_journal(desk):
    path = journal(desk, line(0, 'ACK'), line(0, 'NACK'), line(1, 'ACK'), line(1, 'EXPIRED'), line(47, 'ACK'),
                   line(48, 'ACK'), line(-1, 'ACK'), 'no line\n', '\n', line(2, 'ACK')[:-3])
    counts = report._counted(path, NOW)
    assert len(counts) == report.HOURS
    assert (counts[-1], counts[-2], counts[-3], counts[0]) == ([1, 1], [1, 1], [0, 0], [1, 0])
    assert sum([good + bad for good, bad in counts]) == 5


def test_a_file_name_forges_no_line_of_the_journal(desk):
    forged = line(0, 'ACK', name='x\\",\\"time\\":\\"2026-09-21T14:00:00Z\\",\\"verdict\\":\\"NACK\\"}')
    assert report._counted(journal(desk, forged), NOW)[-1] == [1, 0]


def test_of_a_large_journal_the_end_counts(desk, monkeypatch):
    path = journal(desk, *[line(0, 'ACK')] * 100)
    monkeypatch.setattr(report, 'MOST_JOURNAL', len(line(0, 'ACK')) * 10 + 5)
    assert report._counted(path, NOW)[-1] == [10, 0]


def test_without_a_journal_or_with_one_that_can_not_be_read_it_says_so(desk):
    assert 'There is no journal: set <code>journal</code>' in page(desk)
    os.unlink(journal(desk))
    assert 'can\'t be read: No such file or directory' in page(desk)


@pytest.mark.parametrize('name', [
    '<b>&"\'.json', 'new\nline.json', '\x1b[31m.json', '</title><script>alert(1)</script>'])
def test_no_name_and_no_answer_is_html(desk, name):
    desk.configure('http://127.0.0.1:9/in')
    desk.reject(name.replace('/', '\\'))
    desk.put('w' + name.replace('/', '\\') + '.json')
    html = page(desk)
    assert '<b>' not in html and '<script' not in html and '\x1b' not in html
    assert len(cells(html, 'Rejected')) == len(cells(html, 'Waiting longest')) == 2


def test_only_the_newest_and_the_oldest_are_shown(desk, monkeypatch):
    monkeypatch.setattr(report, 'MOST_REJECTED', 2)
    monkeypatch.setattr(report, 'MOST_OLDEST', 2)
    for number in range(4):
        desk.reject('r%d.json' % number)
        desk.put('w%d.json' % number)
        os.utime(desk.spool + '/w%d.json' % number, (NOW * 2 - number, NOW * 2 - number))
    html = page(desk)
    assert '4 files, the newest 2 shown' in html and len(cells(html, 'Rejected')) == 3
    assert [row[0] for row in cells(html, 'Waiting longest')[1:]] == ['w3.json', 'w2.json']


def test_the_page_is_written_whole_and_for_all_to_read(desk, tmpdir):
    path = str(tmpdir.join('page.html'))
    for _ in range(2):
        assert desk.run('report', '--html', path) == (0, '', '')
    with open(path) as stream:
        assert stream.read().endswith('</body></html>\n')
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    assert [name for name in os.listdir(str(tmpdir)) if name.endswith('.new')] == []


@pytest.mark.parametrize('words, code, said', [
    (('report',), 2, 'report: needs --html FILE, - for standard output: see envio --help'),
    (('report', '--html', '/nowhere/page.html'), 70, 'report: /nowhere/page.html: can\'t be written: No such file'),
])
def test_what_can_not_be_is_said(desk, words, code, said):
    found = desk.run(*words)
    assert (found[0], found[1]) == (code, '') and said in found[2]


def test_a_browser_shows_it(desk, tmpdir):
    browser = find('chromium', 'chromium-browser', 'google-chrome')
    if browser is None:
        pytest.skip('there is no Chromium on this machine')
    journal(desk, line(0, 'ACK'), line(1, 'NACK'))
    desk.reject('r.json')
    desk.put('w.json')
    path = str(tmpdir.join('page.html'))
    with open(path, 'w') as stream:
        stream.write(report.draw(cli._setup(desk.config), NOW).replace('</body>', PROBE + '</body>'))
    child = subprocess.Popen([browser, '--headless', '--no-sandbox', '--disable-gpu', '--user-data-dir=%s' % tmpdir,
                              '--window-size=800,1000', '--virtual-time-budget=1000', '--dump-dom', 'file://' + path],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    dom = child.communicate()[0]
    assert re.search(r'<title>(fits, 2 bars, 3 tables)</title>', dom), dom[:500]


PROBE = """<script>
var page = document.documentElement;
document.title = [page.scrollWidth <= window.innerWidth ? 'fits' : 'too wide',
    Array.from(document.querySelectorAll('rect')).filter(function (bar) {
        return bar.getBoundingClientRect().height > 5 }).length + ' bars',
    document.querySelectorAll('table').length + ' tables'].join(', ');
</script>"""
