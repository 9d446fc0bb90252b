from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gemma_mlx.errors import GemmaError
from gemma_mlx.terminal.xmp import is_ours, packet, with_description

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
DC = "{http://purl.org/dc/elements/1.1/}"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
LIGHTROOM = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" crs:Exposure2012="+0.35" xmp:Rating="4">
   <crs:ToneCurve><rdf:Seq><rdf:li>0, 0</rdf:li></rdf:Seq></crs:ToneCurve>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>"""


def descriptions(content: bytes) -> list[tuple[str | None, str | None]]:
    """(language, text) of each dc:description."""
    root = ElementTree.fromstring(content)
    assert root.tag == "{adobe:ns:meta/}xmpmeta"
    items = root.findall(f"{RDF}RDF/{RDF}Description/{DC}description/{RDF}Alt/{RDF}li")
    return [(item.get(LANGUAGE), item.text) for item in items]


@pytest.mark.parametrize("text", ["A red circle.", "a < b & c > d ]]>", 'say "no"', "日本 ä 🎈", "two\nlines"])
def test_a_packet_says_the_text_in_the_default_language(text: str) -> None:
    written = packet(text)
    assert descriptions(written) == [("x-default", text)]
    assert written.startswith(b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>')
    assert written.endswith(b'<?xpacket end="w"?>\n')
    assert is_ours(written)


def test_what_xml_cannot_say_becomes_a_mark() -> None:
    assert descriptions(packet("a\x1b[2J\x00b\ud800")) == [("x-default", "a\ufffd[2J\ufffdb\ufffd")]


def test_a_sidecar_that_another_program_changed_is_not_ours() -> None:
    written = packet("A red circle.")
    assert not is_ours(LIGHTROOM)
    assert not is_ours(written.replace(b"</rdf:Description>", b"<dc:title/></rdf:Description>"))
    assert not is_ours(b"")


@pytest.mark.parametrize("before", [LIGHTROOM, packet("old one"), b"\xef\xbb\xbf" + LIGHTROOM])
def test_the_description_is_set_and_all_else_is_kept(before: bytes) -> None:
    after = with_description(before, "A <blue> square.", Path("a.xmp"))
    assert descriptions(after) == [("x-default", "A <blue> square.")]
    again = with_description(after, "Another.", Path("a.xmp"))
    assert descriptions(again) == [("x-default", "Another.")]
    for kept in (b'crs:Exposure2012="+0.35"', b'xmp:Rating="4"', b"0, 0", b"Adobe XMP Core 7.0"):
        assert (kept in again) == (kept in before)


def test_a_description_in_plain_text_is_replaced() -> None:
    plain = re.sub(b"<rdf:Alt>.*</rdf:Alt>", b"plain", packet("old"), flags=re.S)
    after = with_description(plain, "new", Path("a.xmp"))
    assert descriptions(after) == [("x-default", "new")]
    assert b"plain" not in after


def test_descriptions_in_other_languages_stay() -> None:
    german = packet("old").replace(b"<rdf:Alt>", b'<rdf:Alt><rdf:li xml:lang="de-DE">alt</rdf:li>')
    after = with_description(german, "new", Path("a.xmp"))
    assert descriptions(after) == [("x-default", "new"), ("de-DE", "alt")]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not xml",
        b"<a/>",
        b'<!DOCTYPE a [<!ENTITY b "c">]>' + LIGHTROOM,
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + LIGHTROOM.decode()).encode("utf-16"),
        b'<?xml version="1.0" encoding="none-such"?>' + LIGHTROOM,
        b'<?xml version="1.0" encoding="utf-7"?>' + LIGHTROOM,
        LIGHTROOM[:200],
    ],
)
def test_what_is_no_xmp_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(GemmaError, match=r"a\.xmp"):
        with_description(content, "new", Path("a.xmp"))
