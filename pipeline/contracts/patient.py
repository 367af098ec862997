"""When two ids are one patient's, however they were typed. Standard library only."""

from __future__ import annotations

import re
import unicodedata

from pipeline.contracts.values import visible

# How the barcodes of public collections begin: as far as the patient, then sample, portion, slide.
BARCODES = re.compile(
    r"(tcga-[a-z0-9]{2}-[a-z0-9]{4}|target-\d{2}-[a-z0-9]{6}|c3[ln]-\d{5}|gtex-[a-z0-9]{4,5})"
    r"(?![a-z0-9]).*"
)


def patient(case_id: str) -> str:
    """What is left of a case id when how it was typed, and the sample of a barcode, do not count.

    Upper and lower case, forms of one character, spaces, `-` or `_`, zeros in front of a number,
    `.0` at the end, and the sample part of a TCGA, TARGET, CPTAC or GTEx barcode.
    """
    text = re.sub(r"\s", "", visible(unicodedata.normalize("NFKC", case_id))).casefold()
    text = re.sub(r"[\u2010-\u2015\u2212_]", "-", text)
    if barcode := BARCODES.fullmatch(text):
        return barcode[1]
    text = re.sub(r"^([^.]*\d)\.0+$", r"\1", text)
    return re.sub(r"(?<!\d)(?<!\d\.)0+(?=\d)", "", text)
