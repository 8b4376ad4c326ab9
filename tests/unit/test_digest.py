"""Digests of received bytes."""

from __future__ import annotations

import hashlib

from dicom_node.digest import Digest, digest_of, is_digest_of, is_earlier


def test_pieces_have_the_digest_of_the_whole_and_it_fits_its_column() -> None:
    pieces = Digest()
    pieces.update(b"data ")
    pieces.update(memoryview(b"set"))
    assert str(pieces) == digest_of(b"data set")
    # the vector of BLAKE3's authors for no input at all, cut to 224 bits
    assert digest_of(b"") == "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93ca"
    assert len(digest_of(b"")) == 63


def test_the_digest_of_an_earlier_version_is_still_one() -> None:
    assert is_digest_of(hashlib.sha256(b"data set").hexdigest(), b"data set")
    assert is_digest_of(digest_of(b"data set"), b"data set")
    assert not is_digest_of(hashlib.sha256(b"data set").hexdigest(), b"data sat")
    assert not is_digest_of(digest_of(b"data set"), b"data sat")


def test_a_digest_is_taken_like_another() -> None:
    earlier = hashlib.sha256(b"data set").hexdigest()
    alike = Digest(like=earlier)
    alike.update(b"data set")
    assert str(alike) == earlier
    assert is_earlier(earlier)
    assert not is_earlier(digest_of(b"data set"))
    assert not is_earlier("")
