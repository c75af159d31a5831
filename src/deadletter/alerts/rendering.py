"""A story as plain text and as HTML."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .story import Story

_COLOURS = {"bad": "#b42318", "warn": "#b54708", "good": "#067647", "calm": "#344054"}
_FONT = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_MONO = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"


def as_text(story: Story) -> str:
    """For a mail's text part, logs and chat services."""
    return "\n".join(_text(story)).strip() + "\n"


def _text(story: Story) -> Iterator[str]:
    yield story.title
    yield ""
    if story.lead:
        yield from (story.lead, "")
    if story.message:
        yield from (*(f"    {line}" for line in story.message.split("\n")), "")
    width = max((len(label) for label, _ in story.facts), default=0) + 2
    yield from (f"{label + ':':{width}}{value}" for label, value in story.facts)
    if story.items:
        yield from ("", f"{story.items_label}:")
        yield from (f"  - {item}" for item in story.items)
    for label, command in story.commands:
        yield from ("", f"{label}:", f"  {command}")
    for label, url in story.links:
        yield from ("", f"{label}: {url}")


def as_html(story: Story) -> str:
    """A whole document, without scripts, images or anything from elsewhere; every text in it is escaped."""
    colour = _COLOURS[story.tone]
    body = "".join(_html(story))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light">'
        f"<title>{escape(story.title)}</title></head>"
        f'<body style="margin:0;padding:24px 12px;background:#f2f4f7;color:#101828;{_FONT};font-size:15px;line-height:1.5">'
        '<table role="presentation" width="100%" cellspacing="0" cellpadding="0"><tr><td align="center">'
        '<table role="presentation" cellspacing="0" cellpadding="0" style="width:100%;max-width:640px;background:#ffffff;'
        f'border:1px solid #d0d5dd;border-top:4px solid {colour}"><tr><td style="padding:20px 24px 24px">'
        f"{body}</td></tr></table></td></tr></table></body></html>\n"
    )


def _html(story: Story) -> Iterator[str]:
    yield (
        f'<h1 style="margin:0 0 8px;font-size:20px;line-height:1.3;color:{_COLOURS[story.tone]};overflow-wrap:anywhere">'
        f"{escape(story.title)}</h1>"
    )
    if story.lead:
        yield f'<p style="margin:0 0 16px">{escape(story.lead)}</p>'
    if story.message:
        yield _pre(story.message)
    if story.facts:
        yield '<table cellspacing="0" cellpadding="0" style="margin:0 0 16px;border-collapse:collapse">'
        for label, value in story.facts:
            yield (
                '<tr><th scope="row" align="left" valign="top" style="padding:2px 16px 2px 0;font-weight:normal;'
                f'color:#475467;white-space:nowrap">{escape(label)}</th>'
                f'<td style="padding:2px 0;overflow-wrap:anywhere;word-break:break-word">{escape(value)}</td></tr>'
            )
        yield "</table>"
    if story.items:
        yield f'<h2 style="margin:16px 0 4px;font-size:15px">{escape(story.items_label)}</h2>'
        yield '<ul style="margin:0 0 16px;padding-left:20px">'
        yield from (f'<li style="overflow-wrap:anywhere">{escape(item)}</li>' for item in story.items)
        yield "</ul>"
    for label, command in story.commands:
        yield f'<p style="margin:12px 0 4px;color:#475467">{escape(label)}</p>{_pre(command)}'
    for label, url in story.links:
        yield (
            f'<p style="margin:20px 0 0"><a href="{escape(url)}" style="display:inline-block;padding:8px 14px;'
            f'background:#344054;color:#ffffff;text-decoration:none;border-radius:4px">Open {escape(label)}</a></p>'
        )


def _pre(text: str) -> str:
    return (
        '<pre style="margin:0 0 12px;padding:10px 12px;background:#f9fafb;border:1px solid #eaecf0;'
        f'white-space:pre-wrap;overflow-wrap:anywhere;{_MONO};font-size:13px">{escape(text)}</pre>'
    )
