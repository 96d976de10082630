"""Which names in a folder of photos belong to an operating system or a storage device, not to a person.

name of a file or folder -> is_clutter
"""

from __future__ import annotations

# Windows, macOS, Linux; Synology, QNAP and other network disks, which keep thumbnails and deleted photos under these.
_NAMES = frozenset(
    {
        "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler",
        "system volume information", "zbthumbnail.info", "picasa.ini", "__macosx", "icon\r", "network trash folder",
        "temporary items", "lost+found", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@eadir", "@tmp",
        "@thumb", "@sharebin",
    }
)  # fmt: skip
# Hidden on Unix, which covers `._photo.jpg`, `.DS_Store`, `.AppleDouble` and `.@__thumb`; Synology's; Office's locks.
_PREFIXES = (".", "@ea", "@syno", "~$")


def is_clutter(name: str) -> bool:
    """Returns whether a file or folder of this name is to be passed over, with all that is in it.

    Args:
        name: the name without the folder that it lies in.
    """
    folded = name.casefold()
    return folded.startswith(_PREFIXES) or folded in _NAMES
