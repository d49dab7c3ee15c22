"""What `python agent` (bin/envio) and `python -m agent` run: puts the folder above agent/ on the path, then cli.main.

Nobody imports this one. It says so in a sentence when this Python can't run the rest: nothing here may need more than
the oldest grammar, and nothing of the agent is imported before the version is known.
"""

import os
import sys

if sys.version_info < (2, 6) or (3, 0) <= sys.version_info < (3, 6):
    sys.stderr.write('envio: %s: this is Python %s: use 2.6, 2.7 or 3.6 and later, for example by ENVIO_PYTHON\n'
                     % (sys.executable, sys.version.split()[0]))
    sys.exit(78)

# Run as a folder, Python puts agent/ itself first on the path, where its files would pass for top-level modules. The
# real path: a link to the tree may be turned to a newer one while this process still has files to import.
here = os.path.dirname(os.path.realpath(__file__))
sys.path[:] = [os.path.dirname(here)] + [folder for folder in sys.path if os.path.realpath(folder) != here]

try:
    from agent.cli import main  # noqa: E402 (it takes the path above)
except KeyboardInterrupt:
    sys.exit(130)

sys.exit(main())
