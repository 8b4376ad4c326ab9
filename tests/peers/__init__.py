"""Real peers for the tests: a PACS, DICOM tools, database servers. A missing one is a failure unless PEERS=none."""
