"""`python -m skylift.gateway.helper DIRECTORY`; the supervisor starts it."""

import asyncio
import sys
from pathlib import Path

from skylift.gateway.helper.serve import serve

if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
