"""Where a URL leads, with and without a proxy, and which answers are the proxy's own."""

import pytest

from agent import compat, places, proxies
from agent.errors import TransportError
from agent.places import host_port, proxy_fields
from agent.resources import Resources
from tests.samples import receiver, reply

PROXY = proxies.Proxy('proxy.example', 3128, '')


def place_of(url, proxy='none', environ=None):
    return places.place_of(url, receiver(url=url, proxy=proxy), Resources(environ or {}))


# --- without a proxy

@pytest.mark.parametrize('url, scheme, host, port, target, authority', [
    ('http://h', 'http', 'h', 80, '/', 'h'),
    ('https://h', 'https', 'h', 443, '/', 'h'),
    ('http://h/in/a%20b?c=d&e', 'http', 'h', 80, '/in/a%20b?c=d&e', 'h'),
    ('https://h:8443/in/', 'https', 'h', 8443, '/in/', 'h:8443'),
    ('http://h?a=b', 'http', 'h', 80, '/?a=b', 'h'),
    ('http://h/in?', 'http', 'h', 80, '/in?', 'h'),
    ('http://h/in?a?b/c//d', 'http', 'h', 80, '/in?a?b/c//d', 'h'),
    ('http://h//in;x=y', 'http', 'h', 80, '//in;x=y', 'h'),
    ('HTTPS://Orders.Example.COM:443/In', 'https', 'orders.example.com', 443, '/In', 'Orders.Example.COM:443'),
    ('http://h.example./in', 'http', 'h.example', 80, '/in', 'h.example.'),
    ('http://127.0.0.1:1/', 'http', '127.0.0.1', 1, '/', '127.0.0.1:1'),
    ('http://[::1]/in', 'http', '::1', 80, '/in', '[::1]'),
    ('https://[2001:DB8::1]:8443/in', 'https', '2001:db8::1', 8443, '/in', '[2001:DB8::1]:8443'),
])
def test_a_url_is_taken_apart(url, scheme, host, port, target, authority):
    assert place_of(url) == (scheme, host, port, None, target, authority)


@pytest.mark.parametrize('url, words', [
    ('http://h', 'h:80'), ('https://h.example.:8443/', 'h.example:8443'), ('http://[::1]/in', '[::1]:80'),
    ('https://[2001:db8::1]:8443/', '[2001:db8::1]:8443'), ('http://127.0.0.1:1', '127.0.0.1:1'),
])
def test_host_and_port_are_written_with_brackets_around_an_address_with_colons(url, words):
    assert host_port(place_of(url)) == words


# --- with one

@pytest.mark.parametrize('url, target', [
    ('http://h', 'http://h/'), ('http://h?a', 'http://h/?a'), ('http://H:8080/in?a=b', 'http://H:8080/in?a=b'),
    ('HTTP://h/in', 'http://h/in'), ('http://[::1]:80/in', 'http://[::1]:80/in'),
])
def test_a_proxy_is_asked_for_the_whole_url(url, target):
    place = place_of(url, 'http://proxy.example:3128')
    assert (place.proxy, place.target) == (PROXY, target)
    assert place.authority == target.split('/')[2]


def test_through_a_tunnel_the_receiver_is_asked_as_if_there_was_no_proxy():
    place = place_of('https://h:8443/in?a=b', 'http://proxy.example:3128')
    assert place == ('https', 'h', 8443, PROXY, '/in?a=b', 'h:8443')


def test_the_environment_says_which_proxy_for_which_url():
    environ = {'http_proxy': 'http://proxy.example:3128', 'https_proxy': 'other:1',
               'no_proxy': 'inner.example,[::1]:81'}
    for url, proxy in (('http://h/', PROXY), ('https://h/', proxies.Proxy('other', 1, '')),
                       ('http://a.inner.example/', None), ('https://INNER.example./', None),
                       ('http://[::1]:81/', None), ('http://[::1]/', PROXY)):
        assert place_of(url, 'env', environ).proxy == proxy, url
        assert place_of(url, 'none', environ).proxy is None
        assert place_of(url, 'http://own:2', environ).proxy.host == 'own'


def test_a_proxy_of_the_environment_that_cant_be_used_is_a_hold_without_a_word_of_its_password():
    with pytest.raises(TransportError) as caught:
        place_of('http://h/', 'env', {'http_proxy': 'socks5://me:secret@proxy'})
    assert (caught.value.stage, caught.value.hold) == ('credentials', True)
    assert 'only http:// proxies are' in str(caught.value) and 'secret' not in str(caught.value)


# --- what is for the proxy alone

def test_a_proxy_that_wants_to_know_who_asks_is_told():
    assert proxy_fields(None) == proxy_fields(PROXY) == ()
    assert proxy_fields(PROXY._replace(credentials='Aladdin:open sesame')) == (
        ('Proxy-Authorization', 'Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=='),)  # RFC 7617 2


def test_credentials_beyond_ascii_go_byte_by_byte():
    proxy = proxies.parse('http://caf%C3%A9:%FF@proxy.example')
    assert proxy_fields(proxy) == (('Proxy-Authorization', 'Basic Y2Fmw6k6/w=='),)
    assert type(proxy_fields(proxy)[0][1]) is str


# --- what is its own word

def said(answer, url='http://h/in', proxy='http://me:secret@proxy.example:3128'):
    """Return the error that an answer is, or None where it is the receiver's."""
    try:
        places.check_proxy(place_of(url, proxy), answer)
    except TransportError as error:
        assert error.stage == 'proxy' and not error.sent_whole
        assert 'secret' not in str(error)
        return error


@pytest.mark.parametrize('answer, words', [
    (reply(407), '407 Reason'),
    (reply(407, ('proxy-authenticate', 'Basic realm="x"'), reason='Proxy Authentication Required'),
     '407 Proxy Authentication Required'),
    (reply(503, ('x-squid-error', 'ERR_CONNECT_FAIL 111')), '503 Reason'),
    (reply(403, ('x-squid-error', 'ERR_ACCESS_DENIED 0')), '403 Reason'),
    (reply(400, ('via', '1.1 x'), ('x-squid-error', 'ERR_INVALID_URL 0')), '400 Reason'),
    (reply(502, ('proxy-status', 'proxy.example; error=connection_refused')), '502 Reason'),
    (reply(504, ('proxy-status', 'proxy.example;error=connection_timeout;details="x"')), '504 Reason'),
    (reply(401, ('server', 'tinyproxy/1.11.1')), '401 Reason'),
    (reply(500, ('server', 'tinyproxy/1.8.3')), '500 Reason'),
    (reply(502, ('x-squid-error', 'x'), reason='a\x1b[2Jb\xff'), '502 a?[2Jb' + compat.native_text(u'\ufffd')),
])
def test_what_a_proxy_says_of_itself_is_nothing_about_the_file(answer, words):
    error = said(answer)
    assert str(error) == 'the proxy proxy.example:3128 refused: ' + words
    assert error.hold == (answer.status in (401, 407)), 'who is not known to it has to be waited for'


@pytest.mark.parametrize('answer', [
    reply(200), reply(200, ('x-squid-error', 'x')), reply(399, ('proxy-status', 'x; error=y')), reply(400), reply(401),
    reply(403), reply(404), reply(422), reply(502), reply(503), reply(503, ('via', '1.1 proxy.example (squid/5.7)')),
    reply(404, ('x-cache', 'MISS from proxy.example')),
    reply(500, ('proxy-status', 'proxy.example; received-status=500')),
    reply(401, ('proxy-authenticate', 'Basic realm="x"')), reply(403, ('server', 'squid/5.7')),
    reply(401, ('server', 'nginx')), reply(500, ('via', '1.1 tinyproxy (tinyproxy/1.11.1)')),
])
def test_any_other_answer_is_the_receivers(answer):
    assert said(answer) is None


@pytest.mark.parametrize('answer', [reply(407), reply(503, ('x-squid-error', 'x')),
                                    reply(502, ('proxy-status', 'x; error=y'))])
def test_where_no_proxy_can_answer_every_answer_is_the_receivers(answer):
    assert said(answer, proxy='none') is None
    assert said(answer, url='https://h/in') is None, 'what comes out of a tunnel is not the proxy\'s'


# 401: what tinyproxy says to a wrong password
@pytest.mark.parametrize('status, hold', [(407, True), (401, True), (403, False), (502, False), (503, False)])
def test_a_proxy_that_refuses_to_connect_is_named_and_only_wrong_credentials_are_a_hold(status, hold):
    error = places.refused_by_proxy(PROXY, status, 'No\n')
    assert (error.stage, error.hold) == ('proxy', hold)
    assert str(error) == 'the proxy proxy.example:3128 refused: %d No?' % status
