"""The documentation points at what exists."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / 'README.md', *sorted((PROJECT / 'docs').glob('*.md'))]


def page_name(page):
    return page.name


@pytest.mark.parametrize('page', PAGES, ids=page_name)
def test_links_lead_to_files(page):
    links = re.findall(r'\]\(([^)#]+)[^)]*\)', page.read_text())
    missing = [link for link in links if '://' not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize('page', PAGES, ids=page_name)
def test_named_tools_and_configs_exist(page):
    text = page.read_text()
    tools = set(re.findall(r'\btools/\w+\.(?:py|sh)\b', text))
    configs = set(re.findall(r'\bconfigs/[\w/]+\.py\b', text))
    missing = [name for name in sorted(tools | configs) if not (PROJECT / name).is_file()]
    assert not missing
