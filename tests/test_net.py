"""What servers and clients take of the system."""

import resource

import pytest

from diffusion_art.errors import UserError
from diffusion_art.net import allow_many_files, token_of


@pytest.mark.parametrize(("soft", "taken"), [(256, 10_240), (65_536, 65_536)])
def test_where_no_limit_is_set_as_many_files_are_taken_as_the_system_gives(
    monkeypatch: pytest.MonkeyPatch, soft: int, taken: int
):
    """macOS says that it has no limit, and refuses to go without one."""
    endless, limits = 2**63 - 1, list[tuple[int, int]]()

    def set_limit(_: int, asked: tuple[int, int]) -> None:
        if asked[0] == endless:
            raise ValueError("current limit exceeds maximum limit")
        limits.append(asked)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, endless))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    allow_many_files()
    assert limits == [(taken, endless)]


def test_all_files_are_taken_that_may_be_had():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        allow_many_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_stream_has_one_token():
    """Several, which `serve` takes, would be an error at each of its clients."""
    with pytest.raises(UserError, match=r"token is a list of 2, and a stream has one token: give token=SECRET\."):
        token_of(["a", "b"])
