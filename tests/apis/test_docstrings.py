"""The examples in the docstrings and in the documentation run as they stand."""

import doctest

import pytest

from mmseg_beit.apis import inference, model, result


@pytest.mark.parametrize('module', [inference, model, result], ids=lambda module: module.__name__.split('.')[-1])
def test_docstring_examples(module, demo):
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert tests
    for test in tests:
        report: list[str] = []
        failures, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
        assert not failures, ''.join(report)


def test_examples_of_the_documentation(demo, project):
    report: list[str] = []
    text = (project / 'docs' / 'inference.md').read_text()
    test = doctest.DocTestParser().get_doctest(text, {}, 'inference.md', None, 0)
    failures, tried = doctest.DocTestRunner().run(test, out=report.append)
    assert tried and not failures, ''.join(report)
