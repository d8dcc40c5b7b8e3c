"""Bodies as clients send them that no registry has as a library. Written from what they were seen to send."""

import base64
import json
import urllib.error
import urllib.request

from reporting import KEY, PROMPT, URL, attempt


def post(path, body, basic=False):
    secret = base64.b64encode(f"user:{KEY}".encode()).decode()
    headers = {"content-type": "application/json", "authorization": f"Basic {secret}" if basic else f"Bearer {KEY}"}
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{error.code} {error.read().decode()[:250]}") from None


def image(body):
    data = post("/v1/images/generations", body)["data"][0]
    return data.get("url") or data.get("b64_json")


OPENAI = {
    "LibreChat": {
        "model": "gpt-image-1", "prompt": PROMPT, "n": 1, "background": "auto", "quality": "auto", "size": "auto",
    },
    "Home Assistant generate_image": {
        "model": "dall-e-3", "prompt": PROMPT, "size": "1024x1024", "quality": "standard", "style": "vivid",
        "response_format": "url", "n": 1,
    },
    "Dify": {
        "model": "gpt-image-1", "prompt": PROMPT, "n": 1, "size": "1024x1024", "negative_prompt": "", "cfg_scale": 7,
        "sample_method": "euler", "sampling_steps": 20, "schedule_method": "default", "guidance": 3.5,
    },
}  # fmt: skip
SILLYTAVERN = {
    "url": "http://127.0.0.1:7860", "auth": "", "prompt": PROMPT, "negative_prompt": "red, blurry",
    "sampler_name": "DDIM", "scheduler": "normal", "steps": 20, "cfg_scale": 7, "width": 512, "height": 512,
    "restore_faces": False, "enable_hr": False, "hr_upscaler": "Latent", "hr_scale": 1.5,
    "hr_additional_modules": [], "denoising_strength": 0.7, "hr_second_pass_steps": 0, "seed": -1, "clip_skip": 1,
    "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"},
    "override_settings_restore_afterwards": True, "save_images": True, "send_images": True,
    "do_not_save_grid": False, "do_not_save_samples": False,
}  # fmt: skip

for name, body in OPENAI.items():
    attempt(name, lambda body=body: image(body))
attempt("SillyTavern", lambda: post("/sdapi/v1/txt2img", SILLYTAVERN, basic=True)["images"][0])
