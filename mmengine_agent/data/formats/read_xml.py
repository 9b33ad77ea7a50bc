"""XML with line numbers, from files that nobody needs to trust."""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from mmengine_agent.data.formats.records import Broken


class Node(Element):
    """An element that knows its line."""

    line = 0


def read_xml(path: Path) -> Node:
    """The root of an XML file.

    Entities, which can be made to fill the memory or to read other files, are declared in a
    document type; neither Pascal VOC nor CVAT has one.

    Raises:
        Broken: if it is no XML, or has a document type.
    """
    parser, builder = expat.ParserCreate(), TreeBuilder(element_factory=Node)

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, attributes).line = parser.CurrentLineNumber  # type: ignore[attr-defined]

    def refuse(*_: Any) -> None:
        raise ValueError(f"line {parser.CurrentLineNumber}: a document type, which is not read")

    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except (OSError, ValueError, expat.ExpatError) as error:
        raise Broken(f"no XML that can be read: {error}") from None
    root: Node = builder.close()  # type: ignore[assignment]
    return root
