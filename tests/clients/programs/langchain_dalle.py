"""LangChain's DallEAPIWrapper of Python."""

from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper
from reporting import KEY, PROMPT, URL, attempt

wrapper = DallEAPIWrapper(api_key=KEY, base_url=f"{URL}/v1")

attempt("DallEAPIWrapper.run", lambda: wrapper.run(PROMPT))
