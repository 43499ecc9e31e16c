from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from predict.images.urls import (
    FetchPolicy,
    ImageError,
    check_address,
    check_url,
    is_public,
    read_policy,
)

ANY = FetchPolicy()

PUBLIC = ["1.1.1.1", "93.184.216.34", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450::1"]
NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",  # carrier-grade NAT
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:1.1.1.1",
    "::ffff:0:1.1.1.1",
    "64:ff9b::1.1.1.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1.1.1.1",
    "64:ff9b:1:ffff::1",
    "100::1",
    "2001::1",  # Teredo
    "2001:0:7f00:1::",
    "2001:db8::1",
    "2002:7f00:1::",  # 6to4
    "2002:101:101::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
OTHER_SPELLINGS = [
    "2130706433",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "0177.1",
    "017700000001",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0X7F.0X1",
    "127.0.0.01",
    "127.0.0.1.",
    "1.1.1.1.",
    "0",
    "0x",
    "example.0x7f",
    "example.1",
    "256.1.1.1",
    "1.1.1.1.1",
    "[::1%25lo]",
    "[::1%lo]",
    "[fe80::1%25eth0]",
    "[::ffff:127.0.0.1%251]",
    "[v1.1]",
    "[1.1.1.1]",
    "[]",
    "::1",
    "example.com.",
    "example..com",
    ".example.com",
    "-example.com",
    "１２７.0.0.1",
    "127。0。0。1",
    "①②⑦.⓪.⓪.①",
    "ⓔxample.com",
    "münchen.de",
    "%31%32%37.0.0.1",
    "127.0.0.1%00.example.com",
    "exa mple.com",
    "example.com\t",
    "",
]
NO_URLS = [
    "",
    " ",
    "image.png",
    "//example.com/a.png",
    "/etc/passwd",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file://example.com/a.png",
    "ftp://example.com/a.png",
    "gopher://example.com/",
    "javascript:alert(1)",
    "s3://bucket/a.png",
    "http:example.com",
    "http:/example.com",
    "http:///example.com",
    "http://",
    "https://?",
    " http://example.com/",
    "http://example.com /",
    "http://example.com/a b",
    "http://example.com/\r\nHost: other",
    "http://example.com/\0",
    "http://example.com/\ud800",
    "http://example.com\\@127.0.0.1/",
    "http://example.com\\.other.example/",
    "http:\\\\example.com/",
    "http://example.com:/",
    "http://example.com:80:80/",
    "http://example.com:0x50/",
    "http://example.com:８０/",
    "http://example.com:-1/",
    "http://example.com:65616/",
    "http://example.com/" + "a" * 10_000,
    "http://" + "a" * 300 + ".example/",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    check_address(address, 443, "host", ANY)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    with pytest.raises(ImageError):
        check_address(address, 443, "host", ANY)
    literal = f"[{address}]" if ":" in address else address
    with pytest.raises(ImageError, match="has no public address"):
        check_url(f"http://{literal}/a.png", ANY)


@given(st.ip_addresses())
def test_what_python_does_not_call_global_never_passes(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        others = (address.is_multicast, address.is_reserved, address.is_loopback)
        assert not any(others)


@given(st.ip_addresses(v=4).filter(lambda address: not is_public(address)))
def test_no_ipv6_form_of_a_private_address_passes(address: IPv4Address) -> None:
    number = int(address)
    forms = [
        number,
        0xFFFF << 32 | number,
        0xFFFF << 48 | number,
        0x64_FF9B << 96 | number,
        0x64_FF9B_0001 << 80 | number,
        0x2002 << 112 | number << 80,
        0x2001_0000 << 96 | number ^ 0xFFFF_FFFF,
        0x2001_0000 << 96 | number << 64,
    ]
    assert not [form for form in map(IPv6Address, forms) if is_public(form)]


@given(st.ip_addresses())
def test_a_literal_is_judged_as_the_address_it_is(address: IPv4Address | IPv6Address) -> None:
    literal = f"[{address}]" if address.version == 6 else str(address)
    try:
        check_url(f"https://{literal}/", ANY)
    except ImageError:
        assert not is_public(address)
    else:
        assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_in_any_other_spelling_is_refused(address: IPv4Address) -> None:
    number = int(address)
    first, second, third, fourth = address.packed
    spellings = [
        f"{number}",
        f"{number:#x}",
        f"0{number:o}",
        f"{first}.{number & 0xFFFFFF}",
        f"{first}.{second}.{number & 0xFFFF}",
        f"{first:#x}.{second}.{third}.{fourth}",
        f"{first}.{second}.{third}.{fourth:#x}",
        f"0{first:o}.{second}.{third}.{fourth}",
        f"{address}.",
    ]
    for spelling in spellings:
        with pytest.raises(ImageError):
            check_url(f"http://{spelling}/", ANY)


@pytest.mark.parametrize("host", OTHER_SPELLINGS)
def test_a_host_in_an_unusual_spelling_is_refused(host: str) -> None:
    for url in (f"http://{host}/a.png", f"https://{host}:443/a.png"):
        with pytest.raises(ImageError):
            check_url(url, ANY)


@pytest.mark.parametrize("url", NO_URLS, ids=lambda url: ascii(url)[:40])
def test_what_is_not_an_http_address_is_refused(url: str) -> None:
    with pytest.raises(ImageError) as refused:
        check_url(url, ANY)
    assert len(str(refused.value)) < 300


@given(st.text(), st.sampled_from(["", "http://", "https://", "http://1.1.1.1", "http://a.b/"]))
def test_any_text_is_an_address_or_refused(text: str, start: str) -> None:
    try:
        url = check_url(start + text, ANY)
    except ImageError:
        return
    assert url.scheme in ("http", "https")
    assert url.user is None


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://EXAMPLE.com:443/a.png?size=1&name=a%2Fb#part",
        "HTTP://xn--mnchen-3ya.de/ü.png",
        "https://my_bucket.example.com/a.png",
        "https://1.1.1.1/",
        "https://[2606:4700:4700:0::1111]/",
        "http://example.com/a@b.png",
    ],
)
def test_ordinary_addresses_pass(url: str) -> None:
    assert check_url(url, ANY).port in (80, 443)


@pytest.mark.parametrize("url", ["http://me:it@example.com/", "http://@1.1.1.1/", "http://a@b@c/"])
def test_credentials_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ImageError, match="credentials") as refused:
        check_url(url, ANY)
    assert "me:it" not in str(refused.value)


def test_other_ports_are_refused_unless_allowed() -> None:
    for url in ("http://example.com:8080/", "http://1.1.1.1:22/", "http://example.com:0/"):
        with pytest.raises(ImageError, match="port"):
            check_url(url, ANY)
    policy = read_policy({"ALLOWED_IMAGE_PORTS": "443, 8080"})
    check_url("http://example.com:8080/", policy)
    with pytest.raises(ImageError, match="port 80; allowed: 443, 8080"):
        check_url("http://example.com/", policy)


def test_hosts_narrow_what_may_be_fetched() -> None:
    policy = read_policy({"ALLOWED_IMAGE_HOSTS": "Example.com, .example.org,1.1.1.1"})
    for host in ("example.com", "EXAMPLE.COM", "a.example.org", "b.a.example.org", "1.1.1.1"):
        check_url(f"https://{host}/", policy)
    for host in ("a.example.com", "example.org", "badexample.com", "badexample.org", "1.0.0.1"):
        with pytest.raises(ImageError, match="not among the hosts"):
            check_url(f"https://{host}/", policy)


def test_no_hosts_mean_data_urls_alone() -> None:
    for url in ("https://example.com/", "file:///etc/passwd"):
        with pytest.raises(ImageError, match="only data URLs"):
            check_url(url, read_policy({"ALLOWED_IMAGE_HOSTS": ""}))
    assert read_policy({}).hosts is None


def test_an_operator_may_name_private_addresses() -> None:
    policy = read_policy({"ALLOWED_IMAGE_ADDRESSES": "127.0.0.1:8123, 10.1.0.0/16, [fd12::/16]:81"})
    for address, port in (("127.0.0.1", 8123), ("10.1.2.3", 80), ("fd12::1", 81), ("1.1.1.1", 443)):
        check_address(address, port, "host", policy)
    for address, port in (
        ("127.0.0.1", 80),
        ("127.0.0.2", 8123),
        ("10.1.2.3", 8123),
        ("10.2.0.1", 80),
        ("fd12::1", 80),
        ("1.1.1.1", 8123),
        ("::ffff:127.0.0.1", 8123),
    ):
        with pytest.raises(ImageError, match="no public address"):
            check_address(address, port, "host", policy)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fd00:ec2::254",
        "fe80::1",
        "168.63.129.16",
        "100.100.100.200",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
    ],
)
def test_no_setting_opens_metadata_addresses(address: str) -> None:
    whole = read_policy({"ALLOWED_IMAGE_ADDRESSES": "0.0.0.0/0,[::/0],169.254.169.254:80"})
    with pytest.raises(ImageError):
        check_address(str(ip_address(address)), 80, "host", whole)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALLOWED_IMAGE_HOSTS", "https://example.com"),
        ("ALLOWED_IMAGE_HOSTS", "*.example.com"),
        ("ALLOWED_IMAGE_HOSTS", "example.com:80"),
        ("ALLOWED_IMAGE_PORTS", "0"),
        ("ALLOWED_IMAGE_PORTS", "http"),
        ("ALLOWED_IMAGE_PORTS", "65536"),
        ("ALLOWED_IMAGE_ADDRESSES", "localhost"),
        ("ALLOWED_IMAGE_ADDRESSES", "::1"),
        ("ALLOWED_IMAGE_ADDRESSES", "10.1.2.3/8"),
        ("ALLOWED_IMAGE_ADDRESSES", "127.0.0.1:99999"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        read_policy({name: value})
