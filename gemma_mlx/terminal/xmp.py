"""A caption as an XMP packet: dc:description in its default language, as ISO 16684-1 writes it."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape, unescape

from gemma_mlx import __version__
from gemma_mlx.errors import GemmaError

_X, _RDF = "adobe:ns:meta/", "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DC, _XML = "http://purl.org/dc/elements/1.1/", "http://www.w3.org/XML/1998/namespace"
_TOOLKIT = f"gemma-mlx {__version__}"
_BEGIN = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END = b'\n<?xpacket end="w"?>\n'
_OURS = re.compile(rb'xmptk="(gemma-mlx [^"]+)">.*<rdf:li xml:lang="x-default">(.*)</rdf:li>', re.S)
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def packet(text: str, toolkit: str = _TOOLKIT) -> bytes:
    """A whole sidecar that says `text`. Characters that XML has not become U+FFFD."""
    written = escape(_written(text))
    body = f"""<x:xmpmeta xmlns:x="{_X}" x:xmptk="{toolkit}">
 <rdf:RDF xmlns:rdf="{_RDF}">
  <rdf:Description rdf:about="" xmlns:dc="{_DC}">
   <dc:description>
    <rdf:Alt>
     <rdf:li xml:lang="x-default">{written}</rdf:li>
    </rdf:Alt>
   </dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>"""
    return _BEGIN + body.encode() + _END


def is_ours(content: bytes) -> bool:
    """Whether `packet` wrote it and nothing was added since."""
    found = _OURS.search(content)
    if found is None:
        return False
    toolkit, text = (group.decode("utf-8", "replace") for group in found.groups())
    return packet(unescape(text), toolkit) == content


def with_description(content: bytes, text: str, path: Path) -> bytes:
    """The sidecar of another program with `text` as its description; all else it says is kept.

    GemmaError where `content`, which is at `path`, is no XMP.
    """
    try:
        if b"<!DOCTYPE" in content.replace(b"\0", b""):  # in UTF-16, too
            raise ElementTree.ParseError("it holds a DOCTYPE")
        for _, (prefix, name) in ElementTree.iterparse(BytesIO(content), events=["start-ns"]):
            if not re.fullmatch(r"ns\d+", prefix):  # those prefixes are ElementTree's own
                ElementTree.register_namespace(prefix, name)
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two are of odd encodings
        raise GemmaError(f"{path} is not XMP ({error}); move it away") from error
    for prefix, name in (("x", _X), ("rdf", _RDF), ("dc", _DC)):
        ElementTree.register_namespace(prefix, name)
    described = root.find(f".//{{{_RDF}}}RDF/{{{_RDF}}}Description")
    if described is None:
        raise GemmaError(f"{path} holds no rdf:Description; move it away")
    for block in root.iter(f"{{{_RDF}}}Description"):
        block.attrib.pop(f"{{{_DC}}}description", None)
        described = block if block.find(f"{{{_DC}}}description") is not None else described
    found = described.find(f"{{{_DC}}}description")
    if found is None:
        found = ElementTree.SubElement(described, f"{{{_DC}}}description")
    choices = found.find(f"{{{_RDF}}}Alt")
    if choices is None:
        found.text = None  # plain text, which some programs write in place of languages
        choices = ElementTree.SubElement(found, f"{{{_RDF}}}Alt")
    for item in list(choices):
        if item.get(f"{{{_XML}}}lang") == "x-default":
            choices.remove(item)
    default = ElementTree.Element(f"{{{_RDF}}}li", {f"{{{_XML}}}lang": "x-default"})
    default.text = _written(text)
    choices.insert(0, default)  # the default stands first
    return _BEGIN + ElementTree.tostring(root, encoding="unicode").encode() + _END


def _written(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
