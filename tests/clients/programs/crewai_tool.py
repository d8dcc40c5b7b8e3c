"""CrewAI's DallETool. It reads the address of the API from OpenAI's variable."""

import json
import os

from reporting import KEY, PROMPT, URL, attempt

os.environ |= {"OPENAI_BASE_URL": f"{URL}/v1", "OPENAI_API_KEY": KEY, "CREWAI_DISABLE_TELEMETRY": "true"}

from crewai_tools import DallETool


def run():
    answer = DallETool()._run(image_description=PROMPT)
    return (json.loads(answer) if isinstance(answer, str) else answer)["image_url"]


attempt("DallETool", run)
