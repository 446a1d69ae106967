"""The lake against a list: whatever is done to it, by whom, in what order, it holds the same.

The model knows nothing of files: a state is a list of rows, the identities it has seen and the
number its next event will get. A branch has a present state and the moves a user made on it; a tag
is a state. Each rule does one thing to a lake and to the model; after each the two are compared.
"""

from __future__ import annotations

from hypothesis import settings

from tests.support.effort import share
from tests.support.lake_model import LakeMachine

TestLakeAgainstAList = LakeMachine.TestCase
TestLakeAgainstAList.settings = settings(max_examples=share(60), stateful_step_count=30)
