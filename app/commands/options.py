"""The options of a command: read as its settings, shown in groups, the nearest one named for a typo.

a class of settings -> a parser with a group for each class that it is made of -> help, completion, and the settings
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource

PROGRAM: Final = "image-predictor"
_UNKNOWN: Final = re.compile(r"unrecognized arguments: (\S+)")


def run_command(name: str, command: type[BaseSettings], arguments: list[str]) -> None:
    """Reads the options of a command and runs it. A wrong option or variable ends the process with status 2.

    Args:
        name: the command's name.
        command: the command's settings.
        arguments: what follows the name on the command line.
    """
    parser = CommandParser(command, prog=f"{PROGRAM} {name}")
    try:
        CliApp.run(command, cli_args=arguments, cli_settings_source=parser.source)
    except ValidationError as error:
        for problem in error.errors():
            print(parser.name_of(problem["loc"]) + problem["msg"].removeprefix("Value error, "), file=sys.stderr)
        sys.exit(2)


def completion_script(commands: Mapping[str, type[BaseSettings]], shell: str) -> str:
    """Returns the script that lets a shell complete commands and options.

    Args:
        commands: the settings of every command, by name.
        shell: bash, zsh, fish or tcsh.
    """
    import shtab

    root = argparse.ArgumentParser(prog=PROGRAM)
    choices = root.add_subparsers(parser_class=CommandParser)
    for name, command in commands.items():
        choices.add_parser(name, command=command, help=_first_line(command))
    return str(shtab.complete(root, shell=shell))


def nearest(given: str, known: Iterable[str]) -> str:
    """Returns a sentence that names the most similar of what is known; nothing if none is similar."""
    found = difflib.get_close_matches(given, list(known), n=1)
    return f" Did you mean {found[0]}?" if found else ""


class CommandParser(argparse.ArgumentParser):
    """Parses the options of one command.

    Args:
        command: the command's settings.
        prog: the words that call it.
        options: anything else that `ArgumentParser` takes.
    """

    def __init__(self, command: type[BaseSettings], prog: str, **options: Any) -> None:
        super().__init__(prog, description=inspect.getdoc(command), **options)
        self._classes = {name: each for each in command.__mro__ for name in inspect.get_annotations(each)}
        self._groups: dict[type, argparse._ArgumentGroup] = {}
        self._command = command
        self.source: CliSettingsSource[BaseSettings] = CliSettingsSource(
            command, root_parser=self, add_argument_method=CommandParser._add_setting
        )
        operands = (action.dest.upper() for action in self._actions if not action.option_strings)
        self.usage = " ".join([prog, "[options]", *operands])

    def error(self, message: str) -> NoReturn:
        """Ends the process with one line that says what is wrong, and which option is the nearest."""
        if unknown := _UNKNOWN.search(message):
            option = unknown[1].partition("=")[0]
            if option.startswith("-"):
                message = f"There is no option {option}.{nearest(option, self._option_string_actions)}"
            else:
                message = f"{option} is one argument too many."
        else:
            message = f"{message[0].upper()}{message[1:]}."
        self.exit(2, f"{message} `{self.prog} --help` shows the options.\n")

    def name_of(self, location: Sequence[int | str]) -> str:
        """Returns how a setting is given, with a colon; nothing for the settings as a whole."""
        if not location:
            return ""
        name = str(location[0])
        option = f"--{name.replace('_', '-')}"
        return (
            f"{option} (PREDICTOR_{name.upper()}): " if option in self._option_string_actions else f"{name.upper()}: "
        )

    def _add_setting(self, *names: str, **options: Any) -> argparse.Action:
        # What a default is made by is no matter for its reader; the description says what it is.
        options["help"] = re.sub(r" \(default factory: \w+\)", "", options.get("help", ""))
        owner = self._classes.get(options.get("dest", ""), self._command)
        if owner is self._command:
            return self.add_argument(*names, **options)
        if owner not in self._groups:
            self._groups[owner] = self.add_argument_group(_first_line(owner))
        return self._groups[owner].add_argument(*names, **options)


def _first_line(documented: type) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0].removesuffix(".")
