"""Replicate's own Python client: everything it offers that there is here. Told by the environment where and who."""

import io
import os
import pathlib
import tempfile
import time

import replicate
from replicate.client import Client
from replicate.exceptions import ReplicateError
from replicate.helpers import FileOutput

from pictures import MODEL, SMALL, THREE_SECONDS, VERSION, assert_pictures, key, server


def refused(status, call):
    try:
        call()
    except ReplicateError as error:
        assert error.status == status, error
        return error
    raise AssertionError("not refused")


# The module itself reads its token and its base URL from the environment.
os.environ["REPLICATE_API_TOKEN"], os.environ["REPLICATE_BASE_URL"] = key, f"{server}/replicate"
assert_pictures(replicate.run(MODEL, input={**SMALL, "num_outputs": 2}), 2, FileOutput)

# The client adds /v1 to whatever it is given.
for base_url in (server, f"{server}/v1", f"{server}/replicate"):
    client = Client(api_token=key, base_url=base_url)
    assert_pictures(client.run(MODEL, input=SMALL), 1, FileOutput)
    assert_pictures(client.run(f"{MODEL}:{VERSION}", input=SMALL), 1, FileOutput)

# A wait that runs out becomes a poll, and neither times out nor returns nothing.
begun = time.monotonic()
assert_pictures(client.run(MODEL, input=THREE_SECONDS, wait=1), 3, FileOutput)
assert time.monotonic() - begun > 2.5, "the wait cannot have run out"
assert_pictures(client.run(MODEL, input=SMALL, wait=False), 1, FileOutput)

prediction = client.predictions.create(version=VERSION, input=SMALL)
assert prediction.status == "starting" and prediction.model == MODEL and prediction.version == VERSION
prediction.wait()
assert prediction.status == "succeeded" and prediction.metrics["predict_time"] > 0 and prediction.metrics["cost"] > 0
assert prediction.error is None and prediction.input == SMALL
assert client.predictions.get(prediction.id).completed_at == prediction.completed_at
prediction.cancel()
assert prediction.status == "succeeded", "canceling what is done changes nothing"

running = client.predictions.create(version=VERSION, input=THREE_SECONDS)
while running.status == "starting":
    running.reload()
assert running.status == "processing"
running.cancel()
running.wait()
assert running.status == "canceled" and running.output is None

page = client.predictions.list()
assert page.results[0].id == running.id and page.next is None and page.previous is None

model = client.models.get(MODEL)
assert (model.owner, model.name) == tuple(MODEL.split("/"))
schema = model.latest_version.openapi_schema["components"]["schemas"]
assert schema["Input"]["properties"]["width"]["maximum"] == 1280
assert model.versions.get(VERSION).id == VERSION
assert model.versions.list().results[0].id == model.latest_version.id
assert MODEL in [f"{listed.owner}/{listed.name}" for listed in client.models.list()]
assert client.accounts.current().username
assert client.hardware.list() == [] and list(client.collections.list()) == []

error = refused(422, lambda: client.run(f"{MODEL}:{'0' * 64}", input=SMALL))
assert error.title == "Invalid version or not permitted", error
error = refused(422, lambda: client.run(MODEL, input={"width": 5}))
assert "input.width" in error.detail, error
refused(404, lambda: client.run("acme/anything", input=SMALL))
refused(404, lambda: client.predictions.get("nothing"))
refused(401, lambda: Client(api_token="wrong", base_url=server).run(MODEL, input=SMALL))
refused(422, lambda: client.predictions.create(version=VERSION, input=SMALL, webhook="https://10.1.2.3"))

# A file is sent ahead, whatever it comes as, and its URL put into the input.
drawn = client.run(MODEL, input=SMALL)[0].read()
path = pathlib.Path(tempfile.mkdtemp()) / "start.png"
path.write_bytes(drawn)
for image in (path, io.BytesIO(drawn), path.open("rb")):
    assert_pictures(client.run(MODEL, input={"prompt": "a cat", "image": image}), 1, FileOutput)
assert_pictures(client.run(MODEL, input={"prompt": "a cat", "image": path}, file_encoding_strategy="base64"), 1, FileOutput)

sent = client.files.create(path)
assert (sent.name, sent.content_type, sent.size) == ("start.png", "image/png", len(drawn)), sent
assert client.files.get(sent.id).checksums == sent.checksums
assert sent.id in [file.id for file in client.files.list()]
assert_pictures(client.run(MODEL, input={"prompt": "a cat", "image": sent.urls["get"]}), 1, FileOutput)
client.files.delete(sent.id)
refused(404, lambda: client.files.get(sent.id))
refused(422, lambda: client.files.create(io.BytesIO(b"not a picture")))
