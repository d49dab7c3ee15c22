"""Which proxy a URL goes through, in tables."""

import pytest

from agent import compat, proxies
from agent.proxies import Proxy
from agent.rules import Refused


# --- one value

@pytest.mark.parametrize('value, host, port, credentials', [
    ('http://proxy.example.com:3128', 'proxy.example.com', 3128, ''), ('http://proxy:3128/', 'proxy', 3128, ''),
    ('proxy:3128', 'proxy', 3128, ''), ('proxy', 'proxy', 1080, ''), ('HTTP://Proxy', 'proxy', 1080, ''),
    ('http://10.0.0.1:80', '10.0.0.1', 80, ''), ('[::1]:3128', '::1', 3128, ''),
    ('http://[2001:DB8::1]', '2001:db8::1', 1080, ''), ('proxy.:65535', 'proxy.', 65535, ''),
    ('http://@proxy', 'proxy', 1080, ''), ('http://user:word@proxy:3128/', 'proxy', 3128, 'user:word'),
    ('user:word@proxy', 'proxy', 1080, 'user:word'), ('user@proxy:1', 'proxy', 1, 'user:'),
    (':word@proxy:1', 'proxy', 1, ':word'), ('u:a:b@proxy:1', 'proxy', 1, 'u:a:b'),
    ('u:a@b@proxy:1', 'proxy', 1, 'u:a@b'), ('u:%40%3a%2F%25@proxy:1', 'proxy', 1, 'u:@:/%'),
    ('u%40x:caf%C3%A9@proxy:1', 'proxy', 1, 'u@x:caf\xc3\xa9'), ('u:w@[::1]:1', '::1', 1, 'u:w'),
])
def test_a_proxy_is_read(value, host, port, credentials):
    assert proxies.parse(value) == Proxy(host, port, credentials)


@pytest.mark.parametrize('value, words', [
    ('https://%s@proxy:443', 'only http:// proxies'), ('socks5://%s@proxy', 'only http:// proxies'),
    ('socks4a://%s@proxy', 'only http:// proxies'), ('%s://proxy', 'nothing may follow'), ('', 'no host'),
    ('http://', 'no host'), ('http://%s@', 'no host'), (':3128', 'no host'), ('http://%s@:3128', 'no host'),
    ('http://%s@proxy/path', 'nothing may follow'), ('http://%s@proxy//', 'nothing may follow'),
    ('http://%s@proxy?x', 'nothing may follow'), ('http://%s@proxy#x', 'nothing may follow'), ('http:///', 'no host'),
    ('%s@proxy:', 'the port'), ('%s@proxy:0', 'the port'), ('%s@proxy:65536', 'the port'), ('%s@proxy:x', 'the port'),
    ('%s@proxy:+1', 'the port'), ('%s@proxy:1:2', 'the port'), ('%s', 'the port'), ('%s@[::1', 'no host name'),
    ('%s@[::1]x', 'no host name'), ('%s@::1', 'no host'), ('%s@[x]', 'no host name'),
    ('%s@[10.0.0.1]', 'no host name'), ('%s@pro!xy', 'no host name'), ('%s@a..b', 'no host name'),
    ('%s@' + 'a' * 254, 'no host name'), ('%s@pro xy', 'blanks'), (' %s@proxy', 'blanks'), ('%s@proxy\n', 'blanks'),
    ('%s\r\nX: y@proxy', 'blanks'), ('%s\0@proxy', 'blanks'), (compat.native_text(u'%s\xe9@proxy'), 'ASCII'),
    ('%s%%0d%%0A@proxy', 'control characters'), ('%s%%00@proxy', 'control characters'),
    ('%s%%7f@proxy', 'control characters'), ('%s%%zz@proxy', '%25'), ('%s%%@proxy', '%25'),
    ('a%%3Ab%s@proxy', 'colon'),
])
def test_a_proxy_that_is_none_is_refused_without_a_word_of_its_password(value, words):
    with pytest.raises(Refused) as caught:
        proxies.parse(value % 'Zaphod:secret' if '%' in value else value)
    assert words in str(caught.value)
    assert 'secret' not in str(caught.value) and 'Zaphod' not in str(caught.value)


# --- the environment

def wanted(environ, scheme='http', host='orders.example.com', port=80):
    found = proxies.from_environment(environ, scheme, host, port)
    return found and found.host


@pytest.mark.parametrize('environ, http, https', [
    ({}, None, None), ({'http_proxy': 'a'}, 'a', None), ({'https_proxy': 'a'}, None, 'a'),
    ({'all_proxy': 'a'}, 'a', 'a'), ({'HTTP_PROXY': 'a'}, 'a', None), ({'HTTPS_PROXY': 'a'}, None, 'a'),
    ({'ALL_PROXY': 'a'}, 'a', 'a'), ({'http_proxy': 'a', 'HTTP_PROXY': 'b', 'all_proxy': 'c'}, 'a', 'c'),
    ({'HTTPS_PROXY': 'b', 'all_proxy': 'c'}, 'c', 'b'), ({'all_proxy': 'c', 'ALL_PROXY': 'd'}, 'c', 'c'),
    ({'http_proxy': '', 'https_proxy': ' ', 'all_proxy': ''}, None, None),
    ({'http_proxy': '', 'HTTP_PROXY': 'b'}, 'b', None), ({'http_proxy': ' a '}, 'a', None),
    ({'proxy': 'a', 'Http_Proxy': 'a', 'ftp_proxy': 'a'}, None, None),
    ({'HTTP_PROXY': 'evil', 'HTTPS_PROXY': 'b', 'REQUEST_METHOD': 'GET'}, None, 'b'),
    ({'http_proxy': 'a', 'HTTP_PROXY': 'evil', 'REQUEST_METHOD': ''}, 'a', None),
    ({'all_proxy': 'a', 'no_proxy': '*'}, None, None), ({'all_proxy': 'a', 'NO_PROXY': '*'}, None, None),
    ({'all_proxy': 'a', 'no_proxy': 'x', 'NO_PROXY': '*'}, 'a', 'a'),
    ({'all_proxy': 'a', 'no_proxy': '', 'NO_PROXY': '*'}, None, None),
])
def test_the_variables_are_read_as_curl_reads_them(environ, http, https):
    assert (wanted(environ), wanted(environ, 'https')) == (http, https)


def test_a_variable_holds_all_that_a_value_can():
    environ = {'http_proxy': 'http://user:word@proxy:3128/'}
    assert proxies.from_environment(environ, 'http', 'x', 80) == Proxy('proxy', 3128, 'user:word')


def test_a_variable_that_cant_be_used_is_refused_but_only_where_it_counts():
    environ = {'http_proxy': 'socks5://user:secret@proxy', 'no_proxy': 'localhost'}
    with pytest.raises(Refused):
        wanted(environ)
    assert wanted(environ, 'https') is None
    assert wanted(environ, host='localhost') is None


@pytest.mark.parametrize('no_proxy, host, port, direct', [
    ('', 'example.com', 80, False), (' , ,', 'example.com', 80, False), ('*', 'example.com', 80, True),
    ('x, *', '10.0.0.1', 80, True), ('example.com', 'example.com', 80, True),
    ('example.com', 'a.b.example.com', 80, True), ('example.com', 'notexample.com', 80, False),
    ('example.com', 'example.org', 80, False), ('example.com', 'com', 80, False),
    ('a.example.com', 'example.com', 80, False), ('.example.com', 'example.com', 80, True),
    ('.example.com', 'a.example.com', 80, True), ('.example.com', 'aexample.com', 80, False),
    ('*.example.com', 'example.com', 80, True), ('*.example.com', 'a.b.example.com', 80, True),
    ('*example.com', 'a.example.com', 80, False), ('EXAMPLE.com.', 'A.example.COM.', 80, True),
    ('x,example.com', 'example.com', 80, True), ('x example.com y', 'example.com', 80, True),
    ('x\texample.com', 'example.com', 80, True), ('com', 'example.com', 80, True), ('.', 'example.com', 80, False),
    ('*.', 'example.com', 80, False), ('localhost', 'localhost', 8080, True), ('localhost', '127.0.0.1', 80, False),
    ('example.com:80', 'a.example.com', 80, True), ('example.com:80', 'example.com', 8080, False),
    ('*:80', 'x', 80, True), ('*:80', 'x', 81, False), ('example.com:', 'example.com', 80, False),
    ('example.com:x', 'example.com', 80, False), ('10.0.0.1', '10.0.0.1', 80, True),
    ('10.0.0.1', '10.0.0.11', 80, False), ('10.0.0.1:80', '10.0.0.1', 80, True),
    ('10.0.0.1:80', '10.0.0.1', 81, False), ('.0.0.1', '10.0.0.1', 80, False), ('0.0.1', '10.0.0.1', 80, False),
    ('10.0.0.0/8', '10.255.1.2', 80, True), ('10.0.0.0/8', '11.0.0.1', 80, False),
    ('10.0.0.77/24', '10.0.0.1', 80, True), ('10.0.0.0/31', '10.0.0.1', 80, True),
    ('10.0.0.0/31', '10.0.0.2', 80, False), ('0.0.0.0/0', '10.0.0.1', 80, True), ('10.0.0.1/32', '10.0.0.1', 80, True),
    ('10.0.0.1/32', '10.0.0.2', 80, False), ('10.0.0.0/33', '10.0.0.0', 80, False),
    ('10.0.0.0/', '10.0.0.0', 80, False), ('10.0.0.0/x', '10.0.0.0', 80, False),
    ('10.0.0.0/-1', '10.0.0.0', 80, False), ('10.0.0.0/8', 'ten.example.com', 80, False),
    ('10.0.0.0/8', '::1', 80, False), ('0.0.0.0/0', '::1', 80, False), ('example.com/8', 'example.com', 80, False),
    ('::1', '[::1]', 80, True), ('[::1]', '::1', 80, True), ('[::1]:80', '::1', 80, True),
    ('[::1]:81', '::1', 80, False), ('0:0::1', '::1', 80, True), ('FD00::/8', 'fd12::1', 80, True),
    ('fd00::/8', 'fe80::1', 80, False), ('[fd00::]/8', 'fd12::1', 80, True), ('::/0', '10.0.0.1', 80, False),
    ('::/129', '::1', 80, False), ('fe80::1%eth0', 'fe80::1', 80, False),
])
def test_no_proxy_names_what_is_reached_directly(no_proxy, host, port, direct):
    assert wanted({'http_proxy': 'proxy', 'no_proxy': no_proxy}, 'http', host, port) == (None if direct else 'proxy')
    assert proxies.goes_direct(no_proxy, host, port) == direct
