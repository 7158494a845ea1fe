"""What one test of the unit tier leaves in pulumi's globals must not reach the next."""

from collections.abc import Iterator

import pulumi
import pytest


@pytest.fixture(autouse=True)
def no_configuration_is_left_behind() -> Iterator[None]:
    yield
    pulumi.runtime.set_all_config({}, [])
