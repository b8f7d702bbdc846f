"""Replicate's next Python client, which is still a beta: what it offers that there is here. Told by the environment where and who."""

import base64
import hmac
import os
import time

import replicate
from replicate import Replicate
from replicate.lib._files import FileOutput

from pictures import MODEL, SMALL, THREE_SECONDS, VERSION, assert_pictures, key, server

OWNER, NAME = MODEL.split("/")


def refused(error, call):
    try:
        call()
    except error as refusal:
        return refusal
    raise AssertionError("not refused")


# The module itself reads its token and its base URL from the environment.
os.environ["REPLICATE_API_TOKEN"], os.environ["REPLICATE_BASE_URL"] = key, f"{server}/v1"
assert_pictures(replicate.run(MODEL, input=SMALL), 1, FileOutput)

for base_url in (f"{server}/v1", f"{server}/replicate/v1"):
    client = Replicate(bearer_token=key, base_url=base_url)
    assert_pictures(client.run(MODEL, input={**SMALL, "num_outputs": 2}), 2, FileOutput)
    assert_pictures(client.run(f"{MODEL}:{VERSION}", input=SMALL), 1, FileOutput)
    assert_pictures(client.run(MODEL, input=THREE_SECONDS, wait=1), 3, FileOutput)

[drawn] = [picture.read() for picture in client.run(MODEL, input=SMALL)]

prediction = client.predictions.create(version=VERSION, input=SMALL)
assert prediction.status == "starting" and prediction.model == MODEL
prediction = client.predictions.wait(prediction.id)
assert prediction.status == "succeeded" and prediction.metrics.predict_time > 0, prediction
running = client.models.predictions.create(model_owner=OWNER, model_name=NAME, input=THREE_SECONDS)
assert client.predictions.cancel(prediction_id=running.id).id == running.id
assert client.predictions.wait(running.id).status == "canceled"
assert running.id in [listed.id for listed in client.predictions.list()]

model = client.models.get(model_owner=OWNER, model_name=NAME)
assert f"{model.owner}/{model.name}" == MODEL
assert MODEL in [f"{listed.owner}/{listed.name}" for listed in client.models.list()]
assert client.account.get().username and client.hardware.list() == []

# A file is shared by a link that its owner signs, with the secret that signs its webhooks.
file = client.files.create(content=drawn)
owner, expiry = client.account.get().username, int(time.time()) + 60
secret = base64.b64decode(client.webhooks.default.secret.get().key.removeprefix("whsec_"))
signature = base64.b64encode(hmac.digest(secret, f"{owner} {file.id} {expiry}".encode(), "sha256")).decode()
link = {"file_id": file.id, "owner": owner, "expiry": expiry}
assert client.files.download(**link, signature=signature).read() == drawn
refused(replicate.PermissionDeniedError, lambda: client.files.download(**{**link, "expiry": expiry + 1}, signature=signature))

refused(replicate.NotFoundError, lambda: client.predictions.get(prediction_id="nothing"))
refused(replicate.UnprocessableEntityError, lambda: client.run(MODEL, input={"width": 5}))
stranger = Replicate(bearer_token="wrong", base_url=f"{server}/v1")
refused(replicate.AuthenticationError, lambda: stranger.predictions.get(prediction_id=prediction.id))
