"""Many questions to one judge: a few at a time, each once, within a budget, and every reply kept as it comes."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from heed.errors import UserError
from heed.judge.cache import Cache, Reply, request_key
from heed.judge.client import Backend, ParameterRefused, Unanswered, again, most_request_tokens
from heed.judge.parsing import Verdict
from heed.judge.prompts import Question
from heed.saying import Say, writable

GIVE_UP = 10
"""Requests in a row without a reply, after which a server counts as gone."""
SILENCE = ("timeout", "connection", "server_error", "rate_limit")


@dataclass(frozen=True, kw_only=True)
class Prices:
    """In any currency, for a million tokens."""

    prompt: float
    completion: float

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A question with what came of it."""

    verdict: Verdict
    reply: Reply | None
    key: str
    cached: bool = False


@dataclass(kw_only=True)
class Usage:
    """What one run of a judge took. Replies from the cache cost nothing and are not counted as requests."""

    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    """Replies whose server did not count tokens."""
    stopped: str | None = None
    """Why the run ended before all was asked."""


@dataclass(kw_only=True)
class Budget:
    """Never spends more than `most`: a request begins only if even its most expensive reply could be paid for."""

    prices: Prices | None
    most: float | None
    spent: float = 0.0
    _reserved: float = 0.0
    _in_flight: int = 0
    _change: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reserve(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """The sum set aside; None when it can no longer be had. Waits while requests in flight may turn out cheaper."""
        cost = self.prices.cost(prompt_tokens, completion_tokens) if self.prices else 0.0
        async with self._change:
            await self._change.wait_for(lambda: not self._in_flight or self._left() >= cost)
            if self._left() < cost:
                return None
            self._reserved += cost
            self._in_flight += 1
            return cost

    def _left(self) -> float:
        return math.inf if self.most is None else self.most - self.spent - self._reserved

    async def settle(self, reserved: float, cost: float) -> None:
        async with self._change:
            self._in_flight -= 1
            self._reserved = self._reserved - reserved if self._in_flight else 0.0  # no rounding is left over
            self.spent += cost
            self._change.notify_all()


class Asker:
    """Puts questions to a backend and remembers what that took, over as many batches as a run has."""

    def __init__(
        self,
        backend: Backend,
        cache: Cache,
        *,
        max_tokens: int,
        prices: Prices | None = None,
        max_cost: float | None = None,
        say: Say,
    ) -> None:
        if max_cost is not None and prices is None:
            raise UserError(
                "judge_max_cost: the prices are unknown; give judge_prices: [prompt, completion] per million"
            )
        self.backend, self.cache, self.max_tokens, self.say = backend, cache, max_tokens, say
        self.usage = Usage()
        self.budget = Budget(prices=prices, most=max_cost)
        self._refused = cache.refused.setdefault(backend.server, set())
        self._silent = 0
        self._heard = False

    @property
    def judge(self) -> str:
        """The name it has in every file."""
        return f"{self.backend.name}:{self.backend.model}"

    @property
    def cost(self) -> float | None:
        return self.budget.spent if self.budget.prices else None

    def ask_all(self, questions: Sequence[Question], *, on_done: Callable[[], object]) -> list[Judged]:
        """The answers in the order of the questions; `on_done` is called with each.

        Raises UserError for what would go wrong with every question, and when the first finds no server at all.
        """
        if not questions:
            return []
        self.backend.prepare(questions)
        return asyncio.run(self._ask_all(questions, on_done))

    async def _ask_all(self, questions: Sequence[Question], on_done: Callable[[], object]) -> list[Judged]:
        # Both belong to the event loop of this batch.
        self._gate = asyncio.Semaphore(self.backend.concurrency)
        self.budget._change = asyncio.Condition()
        groups: dict[str, list[int]] = {}  # equal questions are asked once
        for index, question in enumerate(questions):
            groups.setdefault(self._key(question), []).append(index)
        answers: dict[int, Judged] = {}

        async def answer(group: list[int]) -> None:
            first, *others = group
            asked = answers[first] = await self._answer(questions[first])
            on_done()
            for other in others:
                answers[other] = replace(asked, cached=asked.reply is not None)
                self.usage.cached += asked.reply is not None
                on_done()

        first, *rest = groups.values()
        async with self.backend:
            await answer(first)  # alone: a missing server or model is noticed before all begin
            try:
                async with asyncio.TaskGroup() as tasks:
                    for group in rest:
                        tasks.create_task(answer(group))
            except ExceptionGroup as group:
                raise group.exceptions[0] from None
        return [answers[index] for index in range(len(questions))]

    def _key(self, question: Question) -> str:
        return request_key(self.backend.server, self.backend.body(question, frozenset(self._refused)))

    async def _answer(self, question: Question) -> Judged:
        key = self._key(question)
        if (reply := self.cache.replies.get(key)) is not None:
            verdict = self._read(question, reply)
            if verdict.value is not None:  # otherwise another version read it; ask again
                self.usage.cached += 1
                return Judged(verdict=verdict, reply=reply, key=key, cached=True)
        async with self._gate:
            if self.usage.stopped:
                return Judged(verdict=failed("not_asked", self.usage.stopped), reply=None, key=key)
            try:
                key, reply = await self._request(question)
                if self._read(question, reply).value is None:
                    reply = await self._reask(question, reply)
            except Unanswered as error:
                return Judged(verdict=failed(error.reason, error.detail), reply=None, key=key)
        verdict = self._read(question, reply)
        if verdict.value is not None:
            self.cache.keep(key, reply)
        return Judged(verdict=verdict, reply=reply, key=key)

    def _read(self, question: Question, reply: Reply) -> Verdict:
        verdict = self.backend.read(question, reply)
        return replace(verdict, how="reask") if reply.reasked and verdict.value is not None else verdict

    async def _reask(self, question: Question, reply: Reply) -> Reply:
        """The second reply, with the tokens of both; the first one again where no second came."""
        try:
            _, second = await self._request(question, reply.text)
        except Unanswered:
            return reply
        return replace(
            second,
            reasked=True,
            prompt_tokens=total(reply.prompt_tokens, second.prompt_tokens),
            completion_tokens=total(reply.completion_tokens, second.completion_tokens),
        )

    async def _request(self, question: Question, before: str | None = None) -> tuple[str, Reply]:
        """A reply, and the key of the request that got it; parameters the server refuses are left out from then on."""
        while True:
            more = () if before is None else again(question, before)
            body = self.backend.body(question, frozenset(self._refused), more)
            try:
                return request_key(self.backend.server, body), await self._pay_and_ask(body)
            except ParameterRefused as refusal:
                if refusal.parameter not in self._refused:  # several requests may hear it at once
                    self.cache.keep_refusal(self.backend.server, refusal.parameter)
                    self.say(f"{self.backend.server} does not take {refusal.parameter}; asking without it")

    async def _pay_and_ask(self, body: dict[str, object]) -> Reply:
        reserved = await self.budget.reserve(most_request_tokens(body), self.max_tokens)
        if reserved is None:
            self.usage.stopped = f"the next request could exceed max_cost {self.budget.most:g}"
            raise Unanswered("not_asked", self.usage.stopped)
        cost = 0.0
        try:
            reply = await self.backend.ask(body)
            cost = self._count(reply, reserved)
        except Unanswered as error:
            self._note_silence(error)
            raise
        finally:
            await self.budget.settle(reserved, cost)
        return reply

    def _count(self, reply: Reply, reserved: float) -> float:
        """Adds a reply to what was used; gives its cost, the highest possible one where tokens are not reported."""
        self._heard, self._silent = True, 0
        self.usage.requests += 1
        self.usage.prompt_tokens += reply.prompt_tokens or 0
        self.usage.completion_tokens += reply.completion_tokens or 0
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            self.usage.uncounted += 1
            return reserved
        prices = self.budget.prices
        return prices.cost(reply.prompt_tokens, reply.completion_tokens) if prices else 0.0

    def _note_silence(self, error: Unanswered) -> None:
        if error.reason == "connection" and not self._heard:
            raise UserError(f"judge: no server answers ({error.detail}); is it running, and is judge_base_url right?")
        self._silent = self._silent + 1 if error.reason in SILENCE else 0
        if self._silent >= GIVE_UP:
            detail = f" ({writable(error.detail)})" if error.detail else ""
            self.usage.stopped = f"{GIVE_UP} requests in a row got no reply, the last: {error.reason}{detail}"


def failed(reason: str, detail: str = "") -> Verdict:
    return Verdict(value=None, reason=writable(detail), failure=reason)


def total(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second
