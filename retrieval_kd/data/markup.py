"""Reads the text in TREC's SGML and XML, where `<` and `&` may also stand for themselves.

Markup is what nobody would write in a text: comments, tags that are closed, tags of HTML that need
no end, and tags in capitals. All else stays text, and what was removed on a guess is counted.
"""

from __future__ import annotations

import html
import re

from retrieval_kd.data.rows import Reading

COMMENT = re.compile(r"<!--.*?-->|<(?:\?xml|!DOCTYPE|!ENTITY)\b[^<>]*>", re.DOTALL)
BARE = "nowrap|noshade|selected|checked|compact|ismap|disabled|noresize|multiple"
ATTRIBUTES = (
    rf"""(?:\s+(?:[\w:.-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s<>"']+)|(?:{BARE})(?=[\s/>])))*\s*/?"""
)
TAG = re.compile(rf"<(/?)([a-zA-Z][\w:.-]*){ATTRIBUTES}>", re.IGNORECASE)
CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|\w{1,32});", re.ASCII)
OPEN_ENDED = re.compile(
    "area|base|basefont|br|center|col|dd|dt|font|frame|hr|img|input|li|link|meta|nobr|option|p|"
    "param|tbody|td|tfoot|th|thead|tr|wbr"
)
INLINE = "a|abbr|b|big|code|em|font|i|q|s|small|span|strong|sub|sup|tt|u"
# what ends a field of a topic that is not closed: a field of TREC, or a tag that begins a line
FIELD = (
    r"</?(?:num|number|dom|title|desc|description|smry|summary|narr|narrative|con|fac|nat|def|"
    r"query|question|note|subtopic|top|topic)\b[^<>]*>"
    rf"|\n\s*<(?!/?(?:{INLINE})\b)[a-zA-Z/][^<>\n]*>"
)


def literal(text: str) -> str:
    """Escape what is in CDATA sections, so that it is read as it stands.

    Example:
        >>> literal("<title><![CDATA[a < b &amp; c]]></title>")
        '<title>a &lt; b &amp;amp; c</title>'
    """
    return CDATA.sub(lambda section: html.escape(section[1], quote=False), text)


def plain(text: str, reading: Reading, where: str) -> str:
    """Remove markup, read entities such as `&amp;`, and put the text on one line.

    Example:
        >>> plain("dose < 5 mg of <i>E. coli</i>,<br> R&D &amp; List<String>", Reading(), "")
        'dose < 5 mg of E. coli , R&D & List<String>'
    """
    text = COMMENT.sub(" ", text)
    if "<" in text:
        closed = {tag[2].lower() for tag in TAG.finditer(text) if tag[1]}

        def keep(tag: re.Match[str]) -> str:
            name = tag[2]
            if name.lower() in closed or OPEN_ENDED.fullmatch(name.lower()):
                return " "
            if not name.isupper() or len(name) < 2:
                return tag[0]
            reading.drops.add("tag that is never closed removed from a text", f"{tag[0]} {where}")
            return " "

        text = TAG.sub(keep, text)
    return " ".join(ENTITY.sub(lambda entity: html.unescape(entity[0]), text).split())


def fields(inside: str, tag: str, reading: Reading, where: str) -> list[str]:
    """Read the texts of all elements of this name."""
    pattern = rf"<{tag}(?:\s[^<>]*)?>(.*?)</{tag}\s*>"
    found = re.findall(pattern, inside, re.DOTALL | re.IGNORECASE)
    return [plain(text, reading, where) for text in found]


def open_field(inside: str, tag: str, label: str, reading: Reading, where: str) -> str:
    """Read a topic's field, closed or not, without the label that TREC puts before its text."""
    start = re.search(rf"<{tag}(?:\s[^<>]*)?>\s*(?:{label}\s*:)?", inside, re.IGNORECASE)
    if start is None:
        return ""
    rest = inside[start.end() :]
    ends = rf"</{tag}\s*>" if re.search(rf"</{tag}\s*>", rest, re.IGNORECASE) else FIELD
    return plain(re.split(ends, rest, maxsplit=1, flags=re.IGNORECASE)[0], reading, where)


def attribute(opening: str, name: str) -> str:
    """Return an attribute of an opening tag, or "" if it has none of this name.

    Example:
        >>> attribute('<topic number="7" type="x">', "number"), attribute("<top>", "number")
        ('7', '')
    """
    pattern = rf"""\s{name}\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s<>"']+))"""
    match = re.search(pattern, opening, re.IGNORECASE)
    return html.unescape(next(filter(None, match.groups()), "")).strip() if match else ""


def without(inside: str, tags: tuple[str, ...]) -> str:
    """Cut out all elements of these names."""
    names = "|".join(tags)
    pattern = rf"<({names})(?:\s[^<>]*)?>.*?</\1\s*>"
    return re.sub(pattern, " ", inside, flags=re.DOTALL | re.IGNORECASE)
