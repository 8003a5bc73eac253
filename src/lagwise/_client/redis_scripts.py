"""What RedisStore asks of Redis: four Lua scripts, each one atomic step, and the form of a token in a hash.

A principal's hash has up to three fields for each database cluster: the greatest position, the latest acknowledgement
and the latest doubt. Each is a rank of 24 hexadecimal digits, a blank, and the signed token that has this rank, so
that the script merges by comparing ranks: Redis knows no secret and signs nothing. All that the fields hold, merged,
is what `CausalToken.merge` would have made.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lagwise._client.signature import Seal
from lagwise._decide.token import CausalToken, Position, merged
from lagwise.errors import InvalidToken

# Sixteen clusters make 48 fields; with more than this the hash is spoilt.
_MOST_FIELDS = 64

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function number(value) return string.format('%.0f', value) end
"""

# The server that answers, by an identifier of its own process: after a failover it is another one. The last of each
# answer, so that a process notices that it does not ask the server any more that has its lease and its writes.
_SERVER = """
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
"""

# A run of the server: its memory is whole since then. After a restart or a failover the identifier is another one, and
# after each eviction the count: what was kept may be gone. FLUSHALL takes the marker itself.
_RUN = (
    _NOW
    + _SERVER
    + """
local run = server .. ':' .. string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)')
local since = redis.call('HGET', KEYS[1], 'run') == run and tonumber(redis.call('HGET', KEYS[1], 'since'))
if not since or since > now then
  since = now
  redis.call('HSET', KEYS[1], 'run', run, 'since', number(now))
  -- Leases that another server gave, by its own clock: they end here, whether or not they are renewed there.
  for _, process in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. number(now), '+inf')) do
    redis.call('ZADD', KEYS[2], number(now), process)
  end
end
-- Processes that have not been heard of: they may have acknowledged writes that they could not store.
local function silent(me, patience)
  local count = redis.call('ZCOUNT', KEYS[2], number(now - patience), number(now))
  local mine = tonumber(redis.call('ZSCORE', KEYS[2], me) or 'inf')
  if mine >= now - patience and mine <= now then count = count - 1 end
  return count
end
"""
)

# KEYS: run, processes, principal. ARGV: this process, patience in ms.
# Answers: age of the run in ms, silent processes, 1 for a spoilt hash, the hash, the server.
RECALL = (
    _RUN
    + f"""
local count = redis.pcall('HLEN', KEYS[3])
local fields, spoilt = {{}}, 1
if type(count) == 'number' and count <= {_MOST_FIELDS} then
  fields, spoilt = redis.call('HGETALL', KEYS[3]), 0
end
return {{now - since, silent(ARGV[1], tonumber(ARGV[2])), spoilt, fields, server}}
"""
)

# KEYS: principal. ARGV: time to live in ms, 1 to replace a spoilt hash, then field, rank, value of each part.
# Answers: 1 when the parts are merged, 0 when the hash is spoilt and nothing was done; the server.
REMEMBER = (
    _SERVER
    + f"""
local key, ttl = KEYS[1], tonumber(ARGV[1])
local count = redis.pcall('HLEN', key)
local spoilt = type(count) ~= 'number' or count > {_MOST_FIELDS}
for i = 3, #ARGV, 3 do
  local old = not spoilt and redis.call('HGET', key, ARGV[i])
  if old and not string.find(old, '^' .. string.rep('[0-9a-f]', 24) .. ' ') then spoilt = true end
end
if spoilt then
  if ARGV[2] ~= '1' then return {{0, server}} end
  redis.call('DEL', key)
end
for i = 3, #ARGV, 3 do
  local old = redis.call('HGET', key, ARGV[i])
  if not old or string.sub(old, 1, 24) < ARGV[i + 1] then
    redis.call('HSET', key, ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
  end
end
if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
return {{1, server}}
"""
)

# KEYS: run, processes. ARGV: this process, lease in ms or 0, latest time of the server in ms at which it may begin,
# 1 when something is not in this server that should be, patience in ms, ms after which silent processes are forgotten,
# the server from which the lease is asked.
# Answers: time of the server in ms, 1 when the lease is given, age of the run in ms, silent processes, the server.
BEAT = (
    _RUN
    + """
local lease, given = tonumber(ARGV[2]), 0
if lease > 0 and now <= tonumber(ARGV[3]) and ARGV[7] == server then
  if ARGV[4] == '1' then
    since = now
    redis.call('HSET', KEYS[1], 'since', number(now))
  end
  redis.call('ZADD', KEYS[2], number(now + lease), ARGV[1])
  given = 1
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', number(now - tonumber(ARGV[6])))
return {now, given, now - since, silent(ARGV[1], tonumber(ARGV[5])), server}
"""
)

# KEYS: processes. ARGV: this process, the server that knows all it has stored. Answers: the server.
LEAVE = (
    _SERVER
    + """
if server == ARGV[2] then redis.call('ZREM', KEYS[1], ARGV[1]) end
return {server}
"""
)


def parts_of(token: CausalToken, seal: Seal) -> Iterator[str]:
    """Field, rank and signed text of each part of a token, one after the other."""
    for position in token:
        text = seal.sealed(CausalToken((position,)))
        for kind, rank in _ranks(position).items():
            yield from (f"{position.system}:{kind}", rank, text)


def token_of(fields: Sequence[str], seal: Seal) -> CausalToken:
    """What the fields of a hash hold: names and values, one after the other.

    Raises:
        InvalidToken: a field holds what no secret of this application signed, or what its name and rank do not say.
    """
    return merged(_positions(fields, seal))


def _positions(fields: Sequence[str], seal: Seal) -> Iterable[CausalToken]:
    for field, value in zip(fields[::2], fields[1::2], strict=True):
        system, _, kind = field.partition(":")
        rank, _, text = value.partition(" ")
        token = seal.opened(text)
        if [(str(p.system), _ranks(p).get(kind)) for p in token] != [(system, rank)]:
            raise InvalidToken("a store's field holds another token than its name says")
        yield token


def _ranks(position: Position) -> dict[str, str]:
    ranks = {
        "position": f"{position.timeline:08x}{position.lsn:016x}" if position.timeline else "",
        "issued": f"{position.issued_at:024x}" if position.issued_at else "",
        "doubt": f"{position.in_doubt_at:024x}" if position.in_doubt_at else "",
    }
    return {kind: rank for kind, rank in ranks.items() if rank}


def decoded(value: Any) -> str:
    """Text of an answer, which a client of redis-py may have decoded."""
    return value.decode("ascii") if isinstance(value, bytes) else str(value)
