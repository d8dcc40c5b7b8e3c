"""webuiapi, a client of AUTOMATIC1111."""

import io
from urllib.parse import urlsplit

import webuiapi
from PIL import Image
from reporting import KEY, PNG, PROMPT, URL, attempt

address = urlsplit(URL)
api = webuiapi.WebUIApi(host=address.hostname, port=address.port, username="user", password=KEY)


def written(result):
    file = io.BytesIO()
    result.image.save(file, "PNG")
    return file.getvalue()


def changed(**fields):
    return written(api.img2img(images=[Image.open(io.BytesIO(PNG))], prompt=PROMPT, **fields))


def listed():
    api.refresh_checkpoints()
    found = [
        api.get_sd_models(), api.get_samplers(), api.get_schedulers(), api.get_upscalers(), api.get_scripts(),
        api.get_loras(), api.get_sd_vae(), api.get_memory(), api.get_options(), api.get_cmd_flags(),
        api.get_hypernetworks(), api.get_face_restorers(), api.get_realesrgan_models(), api.get_prompt_styles(),
        api.get_embeddings(), api.get_progress(), api.interrupt(),
    ]  # fmt: skip
    return f"{len(found)} answers"


def chosen():
    api.util_set_model("shapes-sd-turbo")
    try:
        return f"{api.txt2img(prompt=PROMPT).info['sd_model_name']} makes the next image"
    finally:
        api.util_set_model("shapes-flux")


def read_back():
    result = api.txt2img(prompt=PROMPT, negative_prompt="red")
    return f"the text of png_info is {api.png_info(result.image).info == result.info['infotexts'][0]}"


attempt("txt2img", lambda: written(api.txt2img(prompt=PROMPT, negative_prompt="red")))
attempt("img2img", changed)
attempt("img2img, a mask", lambda: changed(mask_image=Image.new("L", (64, 64), 255)))
attempt("lists, options, progress", listed)
attempt("util_set_model, txt2img", chosen)
attempt("png_info", read_back)
