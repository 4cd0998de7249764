#!/usr/bin/python
# Apache-2.0 (see LICENSE)
"""Ask OPA for decisions."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: swiftdeploy_opa
short_description: Ask OPA for one or several decisions
version_added: "0.1.0"
description:
  - Asks the Open Policy Agent that runs on the host for the decision of one or several policy domains.
    C(POST /v1/data/swiftdeploy/DOMAIN/decision).
  - The module never fails because of the answer. Whatever OPA does, each domain gets an outcome under
    RV(decisions), and the task that follows acts on it.
  - Only an answer that is exactly a well-formed decision to allow has the outcome V(allowed). An answer
    that is anything else than a well-formed decision has the outcome V(unavailable).
  - A decision that was made by other policies than those of O(revision) has the outcome V(unavailable) too.
  - The question leaves the host neither through a proxy nor along a redirect.
attributes:
  check_mode:
    description: Can run in check mode and return the same decisions.
    support: full
  diff_mode:
    description: Returns what changed or would change in diff mode.
    support: N/A
    details:
      - Nothing is ever changed.
  idempotent:
    description: A second run changes nothing.
    support: full
options:
  url:
    description:
      - Where OPA listens, C(opa_url) of the stack's options. C(http+unix://SOCKET), slashes of the path as C(%2F).
      - Nobody else enters the folder of that socket, and its program runs as the user of the stack. Otherwise it is not
        asked, and the outcome is V(unavailable). C(http://HOST:PORT) is for an OPA that is no stack's.
    type: str
    required: true
  not_started:
    description: Why OPA did not start. It is not asked then, and the outcome is V(unavailable).
    type: str
    default: ""
  queries:
    description: What to ask, in this order. A domain can be asked once.
    type: list
    elements: dict
    required: true
    suboptions:
      domain:
        description: The policy domain, the last part of its package's name.
        type: str
        required: true
      input:
        description:
          - The policy's input.
          - Numbers that JSON does not know (NaN, infinity) are sent as V(null), which no policy passes.
        type: dict
        required: true
      facts_of:
        description:
          - Measure the host now, as M(swiftdeploy_host_facts) does, and put what it answers as C(facts) under C(facts)
            of the input. One start of Python on the host, and no time between measuring and asking.
        type: dict
        suboptions:
          path: {description: Where the stack keeps its data., type: path, required: true}
          engine_path: {description: Where the container engine keeps its data; empty for none., type: str, default: ""}
  timeout:
    description:
      - Seconds that one question may take in all, from name resolution to the last byte of the answer.
    type: float
    default: 3
  revision:
    description:
      - Revision of the policies that must have decided, as filter C(sd_policy_revision) makes it. A decision by
        others has the outcome V(unavailable). Left out or empty, any will do.
    type: str
    default: ""
  evaluate:
    description:
      - Decide by these policies with a one-time OPA instead of asking the one at O(url). Nothing is left behind, and
        the decisions have no V(decision_id). For a dry run, which must not install the policies that it shows.
    type: dict
    suboptions:
      argv:
        description:
          - The program and its arguments, as for C(opa eval). The query is put behind them, the question is given on
            the standard input, and V(%s) stands for the folder of the policies.
        type: list
        elements: str
        required: true
      files:
        description: The policies, C(path) and C(content).
        type: list
        elements: dict
        required: true
seealso:
  - module: swiftdeploy_host_facts
  - name: The policies
    description: What is asked and what is answered.
    link: https://www.openpolicyagent.org/docs/latest/rest-api/#data-api
author:
  - SwiftDeploy maintainers (@swiftdeploy)
"""

EXAMPLES = r"""
- name: Ask whether the host may take a deploy
  swiftdeploy_opa:
    url: "{{ stack_options.opa_url }}"
    timeout: 3
    queries:
      - domain: infrastructure
        input:
          environment: production
          action: deploy
        facts_of:
          path: ~/.swiftdeploy/app
  register: gate

- name: Stop unless it may
  ansible.builtin.fail:
    msg: "{{ gate.decisions.infrastructure.reasons | join('; ') }}"
  when: gate.decisions.infrastructure.outcome != 'allowed'
"""

RETURN = r"""
decisions:
  description: One entry for each domain that was asked, by the domain's name.
  returned: always
  type: dict
  contains:
    outcome:
      description:
        - V(allowed), V(denied), V(insufficient) (too little evidence for a verdict) or V(unavailable) (no decision).
      type: str
      sample: denied
    allow:
      description: V(true) with outcome V(allowed) only.
      type: bool
      sample: false
    reasons:
      description: >-
        Sentences why not. Empty with outcome V(allowed). With V(unavailable) one sentence on what went wrong,
        where, and what to do.
      type: list
      elements: str
      sample: ["P99 latency is 620 ms, maximum is 500 ms"]
    checked:
      description: The figures that the policy judged.
      type: dict
      sample: {"p99_latency_ms": 620, "error_rate": 0.0}
    thresholds:
      description: >-
        The thresholds they were held against, the environment asked for (C(environment)), and the entry of the
        threshold data they come from (C(source)).
      type: dict
      sample: {"p99_latency_ms": {"max": 500}, "environment": "production", "source": "default"}
    override:
      description:
        - What the policy made of a person's override (C(override) of the input). Only where one was needed.
      returned: when an override was needed
      type: dict
      contains:
        accepted: {description: Whether the policy accepted it. Then the outcome is V(allowed)., type: bool}
        reason: {description: Why the person asked for it., type: str}
        actor: {description: Who asked for it., type: str}
        overridden: {description: The reasons that would have stood. Empty where it was refused., type: list}
    decision_id:
      description: OPA's own identifier of the decision. V(null) where OPA keeps no decision log.
      type: str
      sample: 4ca636c1-55e4-417a-b1d8-4aceb67960d1
    policy_revision:
      description:
        - Which policies and thresholds decided, told by OPA from the same transaction that evaluated them. It is that
          of the loaded policies, also where others lie on the disk by now. V(null) where OPA loaded no bundle.
      type: str
      sample: 3f1c0c0e3e6b0d5a4b7c2f9a9a0c8d1e5f60718293a4b5c6d7e8f90123456789
    cause:
      description:
        - Why no decision came back, V(null) where one did. One of V(refused), V(timeout), V(http_status), V(not_json),
          V(undefined), V(malformed), V(too_large), V(connection), V(other_policies), V(not_ours) (another user's
          program has its place), V(not_started).
      type: str
      sample: null
    detail:
      description: The cause in words, V(null) where a decision came back.
      type: str
      sample: null
    input:
      description: The question as it was sent, from which the same decision can be made again.
      type: dict
      sample: {"environment": "production", "action": "deploy", "facts": {"disk_free_gb": 4.2}}
    duration_ms:
      description: How long the question took, in milliseconds.
      type: float
      sample: 2.4
"""

from typing import Any, Dict, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.swiftdeploy_target.host_facts import measure
from ansible.module_utils.swiftdeploy_target.opa import ask, check_domains, check_timeout, check_url, unasked
from ansible.module_utils.swiftdeploy_target.opa_eval import evaluate
from ansible.module_utils.swiftdeploy_target.surroundings import clear_surroundings


def main() -> None:
    """Run the module."""
    clear_surroundings()
    query = {
        "domain": {"type": "str", "required": True},
        "input": {"type": "dict", "required": True},
        "facts_of": {
            "type": "dict",
            "options": {"path": {"type": "path", "required": True}, "engine_path": {"type": "str", "default": ""}},
        },
    }
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "not_started": {"type": "str", "default": ""},
            "queries": {"type": "list", "elements": "dict", "required": True, "options": query},
            "timeout": {"type": "float", "default": 3.0},
            "revision": {"type": "str", "default": ""},
            "evaluate": {
                "type": "dict",
                "options": {
                    "argv": {"type": "list", "elements": "str", "required": True},
                    "files": {"type": "list", "elements": "dict", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    url, queries, timeout, revision = (module.params[name] for name in ("url", "queries", "timeout", "revision"))
    try:
        check_url(url)
        check_timeout(timeout)
        check_domains([query["domain"] for query in queries])
    except ValueError as error:
        module.fail_json(msg=str(error))

    def decide(domain: str, question: Dict[str, Any], where: Optional[Dict[str, str]]) -> Dict[str, Any]:
        if where is not None:
            question = {**question, "facts": measure(where["path"], where["engine_path"])["facts"]}
        dry = module.params["evaluate"]
        if dry:
            return evaluate(dry["argv"], dry["files"], domain, question)
        if module.params["not_started"]:
            return unasked(url, question, module.params["not_started"])
        return ask(url, domain, question, timeout, revision)

    decisions = {query["domain"]: decide(query["domain"], query["input"], query["facts_of"]) for query in queries}
    module.exit_json(changed=False, decisions=decisions)


if __name__ == "__main__":
    main()
