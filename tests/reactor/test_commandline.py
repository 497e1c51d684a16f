"""Commands for services of twistd: completion, manual, errors."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

from twisted.python.usage import UsageError
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from couchnode.service import Options
from reactor.commandline import COMPLETIONS, EXIT_USAGE, Option, manual, options_of, run_service


class CompletionTests(SynchronousTestCase):
    """``--completion``."""

    def printed(self, shell: str) -> str:
        """Return a completion."""
        output = io.StringIO()
        with redirect_stdout(output), self.assertRaises(SystemExit) as caught:
            Options().parseOptions(["--completion", shell])
        self.assertEqual(caught.exception.code, 0)
        return output.getvalue()

    def test_every_option(self) -> None:
        """Each option is in the completion for each shell."""
        for shell in COMPLETIONS:
            text = self.printed(shell)
            for option in options_of(Options()):
                self.assertIn(option.name, text, shell)

    def test_unknown_shell(self) -> None:
        """The shells that there are, are named."""
        with self.assertRaisesRegex(UsageError, "--completion tcsh: expected bash, fish, zsh"):
            Options().parseOptions(["--completion", "tcsh"])

    def test_shells_understand(self) -> None:
        """Each shell that is installed parses its completion; bash also completes a word."""
        for shell in COMPLETIONS:
            if shutil.which(shell) is not None:
                done = subprocess.run(
                    [shell, "-n"], input=self.printed(shell), text=True, capture_output=True
                )
                self.assertEqual((done.returncode, done.stderr), (0, ""), shell)
        if shutil.which("bash") is None:
            raise SkipTest("bash is not installed")
        script = 'COMP_WORDS=(couchnode --eph); COMP_CWORD=1; _couchnode; echo "${COMPREPLY[@]}"'
        done = subprocess.run(["bash"], input=self.printed("bash") + script, text=True, capture_output=True)
        self.assertEqual((done.stdout, done.stderr), ("--ephemeral\n", ""))

    def test_hostile_texts(self) -> None:
        """Characters that a shell or roff takes for its own are data."""
        option = Option("name", True, 'it\'s [a:b] \\ $(echo no) `no` "q"')
        for shell, complete in COMPLETIONS.items():
            if shutil.which(shell) is not None:
                text = complete("program", [option])
                done = subprocess.run([shell, "-n"], input=text, text=True, capture_output=True)
                self.assertEqual((done.returncode, done.stderr), (0, ""), shell)
        page = manual("program", "1", ".so /etc/passwd", [option._replace(text=".so 'x")])
        self.assertNotIn("\n.so", page)


class RunTests(SynchronousTestCase):
    """``run_service``, as far as it ends by itself."""

    def test_wrong_option(self) -> None:
        """One line says what is wrong, another where the options are; the status is 2."""
        errors = io.StringIO()
        with redirect_stderr(errors), self.assertRaises(SystemExit) as caught:
            run_service(Options, ["--kv-port", "soon", "--ephemeral"])
        self.assertEqual(caught.exception.code, EXIT_USAGE)
        self.assertEqual(
            errors.getvalue(),
            "couchnode: --kv-port soon: a whole number is expected\ncouchnode --help lists the options.\n",
        )

    def test_usage(self) -> None:
        """``--help`` shows the command as it was called."""
        output = io.StringIO()
        with redirect_stdout(output), self.assertRaises(SystemExit):
            run_service(Options, ["--help"])
        self.assertTrue(output.getvalue().startswith("Usage: couchnode [options]\n"))

    def test_process(self) -> None:
        """The command of a true process prints the version."""
        code = "from couchnode.command import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True
        )
        self.assertRegex(done.stdout, r"^couchnode \d+\.\d+\.\d+\n$")
