"""examples/ on a real daemon, pasted into the program as their README says: reached from RAGFlow by name, and gone with the stack."""

from pathlib import Path
from typing import Any

from tests.support import examples, ragflow

DOCUMENTS = ["Bananas are yellow", "Paris is the capital of France"]


def test_ragflow_reaches_the_second_reranker_and_the_companion_by_name_and_all_of_it_goes_with_the_stack(place: Any, tmp_path: Path) -> None:
    name = place.standin()
    # The base image in the place of Qdrant's: no registry is asked.
    stand_in = (
        f'opts, name="{place.token}-vectors", image="{place.base}", command=["python3", "-m", "http.server", "--directory", "/etc/default", "6333"])'
    )
    project = examples.project(tmp_path, changed={"companion(network, deployment, opts)": f"companion(network, deployment, {stand_in}"})
    config = {**place.config, "apiKey": "sk-rrd-shared"}
    done = place.stack.up(config, sees=place.sees, project=project)
    for output in ("internalUrl", "secondUrl"):
        asked = {"model": done.exports["modelName"], "query": "capital of France", "documents": DOCUMENTS, "key": "sk-rrd-shared"}
        assert ragflow.rerank(name, done.exports[output], **asked) == DOCUMENTS[::-1]
    status, listing = ragflow.curl(name, done.exports["vectorsUrl"])
    assert (status, "Directory listing" in listing) == (200, True)
    assert ragflow.networks(place.client, f"{place.token}-vectors") == {place.network}
    assert place.stack.up(config, sees=place.sees, project=project).news == {}
    place.stack.down()
    assert place.remains() == [name]
