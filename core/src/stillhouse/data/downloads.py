"""Files of datasets that their publisher lets anybody download: fetched once, checked against a pinned checksum."""

from __future__ import annotations

from pathlib import Path

from stillhouse.errors import DataError


def fetch(path: Path, *, url: str, checksum: str, licence: str, allowed: bool) -> Path:
    """The file at ``path``, downloaded when it is not there.

    Args:
        path: where the file belongs, under the dataset's folder; what is there already is taken as it is.
        url: where its publisher keeps it.
        checksum: ``"md5:..."`` or ``"sha256:..."`` as published or pinned; a download that differs is deleted.
        licence: what it may be used for; shown where it has to be downloaded by hand.
        allowed: downloading is allowed: `stillhouse.types.DataContext.download`.

    Returns:
        ``path``.

    Raises:
        DataError: the file is missing and could not be downloaded, with the file to put there by hand.
    """
    if path.exists():
        return path
    by_hand = f"download {url} and put it there ({licence})"
    if not allowed:
        raise DataError("the file is missing, and nothing may be downloaded", where=str(path), fix=by_hand)
    import pooch
    from requests import RequestException

    logger = pooch.get_logger()
    before = logger.level
    logger.setLevel("WARNING")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(url, known_hash=checksum, fname=path.name, path=path.parent)
    except (RequestException, OSError, ValueError) as error:
        cause = str(error).splitlines()[0]
        raise DataError(
            f"the file is missing and the download failed: {cause}", where=str(path), fix=by_hand
        ) from error
    finally:
        logger.setLevel(before)
    return path
