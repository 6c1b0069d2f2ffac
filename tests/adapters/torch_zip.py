"""Files of `torch.save`, made by torch and by hand, for the tests of their reader."""

import io
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, settings

from fccl.adapters.torch_files import read_torch_file
from fccl.errors import AdapterError
from tests.examples import few

fuzz = settings(max_examples=few(150), deadline=None, database=None, suppress_health_check=list(HealthCheck))


def saved(content, **how):
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def by_torch(content):
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def same(one, two):
    equal = (one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]) for name in one)
    return list(one) == list(two) and all(equal)


def zipped(program, records=(), method=zipfile.ZIP_STORED, **more):
    """A file as torch writes it around a program, with the records `data/0`, `data/1`, ..."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("archive/data.pkl", program)
        for index, record in enumerate(records):
            archive.writestr(f"archive/data/{index}", record)
        for name, content in ({"version": b"3\n"} | more).items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def opened(content):
    """The program of a file and its records."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    folder = archive.namelist()[0].split("/")[0]
    count = sum("/data/" in name for name in archive.namelist())
    return archive.read(f"{folder}/data.pkl"), [archive.read(f"{folder}/data/{index}") for index in range(count)]


def refused(content):
    with pytest.raises(AdapterError) as caught:
        read_torch_file(content, "it")
    assert str(caught.value).startswith("it ")
    assert "\n" not in str(caught.value)
    return str(caught.value)
