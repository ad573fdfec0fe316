from __future__ import annotations

import pytest

from reuselib.errors import RecipeError, SourceError
from reuselib.lineage.policy import Policy, demanding, demands, policy_for

FULL = """\
trusted_keys: [keys/release.pub]
trusted_roots: [keys/authority.pem]
identities: [release@example.org]
require: [signed, proven]
unrecorded: warn
max_age_days: 365
superseded: ["{digest}"]
licences: [Apache-2.0]
min_completeness: 0.5
claims: hold
allow: [TEMPLATE_CODE]
"""


def write(folder, text):
    (folder / "keys").mkdir(exist_ok=True)
    for name in ("release.pub", "authority.pem"):
        (folder / "keys" / name).write_text("x")
    (folder / "policy.yaml").write_text(text)
    return folder / "policy.yaml"


def test_every_field_is_read_and_paths_are_those_of_the_file(tmp_path, monkeypatch):
    path = write(tmp_path, FULL.format(digest="a" * 64))
    monkeypatch.chdir(tmp_path.parent)

    assert Policy.read(path) == Policy(
        trusted_keys=(str(tmp_path / "keys/release.pub"),),
        trusted_roots=(str(tmp_path / "keys/authority.pem"),),
        identities=("release@example.org",),
        require=("signed", "proven"),
        unrecorded="warn",
        max_age_days=365,
        superseded=("a" * 64,),
        licences=("Apache-2.0",),
        min_completeness=0.5,
        claims="hold",
        allow=("TEMPLATE_CODE",),
    )


def test_an_empty_file_demands_what_is_demanded_by_default(tmp_path):
    assert Policy.read(write(tmp_path, "# nothing\n")) == Policy()


WRONG = {
    "trusted_key: [x]": "policy.yaml:1: trusted_key: unknown key; did you mean `trusted_keys`?",
    "require: [signd]": "Did you mean `signed`?",
    "require: [missing]": "policy.yaml:1: require[0]: expected `proven` or `replayed` or `signed` or `recorded`",
    "require: [signed]": "policy.yaml:1: require: `signed` needs somebody to trust",
    "\nrequire: signed": "policy.yaml:2: require: ",
    "trusted_keys: [nowhere.pub]": "policy.yaml:1: trusted_keys[0]: there is no file",
    "identities: [me]": "policy.yaml:1: identities: has no effect without `trusted_roots`",
    "max_age_days: 0": "policy.yaml:1: max_age_days: expected at least 1; got 0",
    "max_age_days: '7'": "policy.yaml:1: max_age_days: expected",
    "min_completeness: 2": "policy.yaml:1: min_completeness: expected a share from 0 to 1; got 2",
    "allow: [CHAT_TEMPLATE]": "policy.yaml:1: allow[0]: `CHAT_TEMPLATE` is no danger",
    "superseded: [abc]": "policy.yaml:1: superseded[0]: expected 64 lower-case hex digits",
    "unrecorded: no": "policy.yaml:1: unrecorded: ",
    "claims: hold\nclaims: hold": "policy.yaml:2: claims: `claims` is given twice",
    "- x": "policy.yaml:1: expected a mapping",
    "x: !!python/object:os.system {}": "the tag `!!python/object:os.system` is not allowed",
    "claims: [": "policy.yaml:1: ",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_told_by_file_line_and_key(tmp_path, text):
    path = write(tmp_path, text)

    with pytest.raises(RecipeError) as caught:
        Policy.read(path)

    assert WRONG[text] in str(caught.value)


def test_python_is_told_likewise():
    with pytest.raises(RecipeError, match="`missing` cannot be demanded"):
        Policy(require=("missing",))


def test_all_mistakes_are_told_at_once(tmp_path):
    path = write(tmp_path, "max_age: 3\nclaims: maybe\n")

    with pytest.raises(RecipeError) as caught:
        Policy.read(path)

    assert len(caught.value.problems) == 2


def test_what_cannot_be_read_is_said(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "huge").write_text("# x\n" * 2**19)

    with pytest.raises(RecipeError, match="not UTF-8"):
        Policy.read(tmp_path / "binary")
    with pytest.raises(RecipeError, match="at most"):
        Policy.read(tmp_path / "huge")
    with pytest.raises(SourceError, match="cannot read the policy"):
        Policy.read(tmp_path / "nowhere.yaml")


def test_keys_of_the_command_line_must_have_signed(tmp_path):
    (tmp_path / "a.pub").write_text("x")

    assert demands(None) is None
    assert demands(None, keys=[tmp_path / "a.pub"]) == Policy(
        trusted_keys=(str(tmp_path / "a.pub"),), require=("recorded", "signed")
    )
    with pytest.raises(SourceError, match="there is no file"):
        demands(None, keys=[tmp_path / "b.pub"])


def test_keys_of_the_command_line_come_besides_those_of_the_file(tmp_path):
    path = write(tmp_path, "trusted_keys: [keys/release.pub]\nrequire: [proven]\n")

    policy = demands(path, keys=[tmp_path / "keys/authority.pem"])

    assert policy is not None
    assert [key.rpartition("/")[2] for key in policy.trusted_keys] == [
        "release.pub",
        "authority.pem",
    ]
    assert policy.require == ("proven", "signed")


def test_huge_file_is_no_policy(tmp_path):
    (tmp_path / "huge").write_text("# x\n" * 2**19)

    with pytest.raises(RecipeError, match="is no policy") as caught:
        Policy.read(tmp_path / "huge")
    assert "recipe" not in str(caught.value)


def test_a_text_is_no_list():
    with pytest.raises(RecipeError, match=r"require: expected a list, such as `\[signed\]`"):
        Policy(require="signed")
    with pytest.raises(RecipeError, match="trusted_keys: expected a list"):
        Policy(trusted_keys="key.pub")


def test_whoever_trusts_somebody_demands_a_signature(tmp_path):
    assert Policy(trusted_keys=("k",)).require == ("recorded", "signed")
    assert Policy(trusted_roots=("r",), require=("proven",)).require == ("proven", "signed")
    assert Policy(require=()).require == ()
    assert (
        Policy.read(write(tmp_path, "trusted_keys: [keys/release.pub]\n")).require[-1] == "signed"
    )


def test_policy_from_the_model_folder_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    own, foreign = write(tmp_path, "require: []\n"), write(folder, "require: []\n")
    (tmp_path / "link.yaml").symlink_to(foreign)

    assert policy_for(folder, own) == policy_for(folder, str(own)) == Policy(require=())
    assert policy_for(folder, None) is None
    made_of_it = demanding(Policy.read(foreign), ("recorded",))
    for policy in (foreign, str(foreign), tmp_path / "link.yaml", Policy.read(foreign), made_of_it):
        with pytest.raises(RecipeError, match="lies in the model folder"):
            policy_for(folder, policy)
