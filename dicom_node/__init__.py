"""dicom-node: the AI node beside a hospital's PACS.

The road of one series, file by file, in reading order::

    association          receive/scp.py        a peer connects; admission.py decides whether we talk to it
    -> instance stored   store/storage.py      file synced, row committed, only then 0x0000 (or 200 to STOW-RS)
    -> series assembled  assemble/             DICOM sends no "that was the last one"; domain/study.py decides
    -> routed -> job     route/                a complete series x the rules (domain/rule.py) -> jobs, or the reason
    -> inference         work/attempt.py       one attempt, top to bottom: volume.py -> ai -> work/findings.py
    -> result objects    results/seg.py, sr.py findings become DICOM, valid the moment they exist
    -> delivered         deliver/sender.py     stored bytes go to a destination (dimse.py, ...)
    -> audit             db/audit.py           written inside each of the transactions above, not after them
"""

__version__ = "0.1.0"
