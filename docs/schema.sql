-- The database of nanokimi (store/nanokimi.db), as its migrations leave it. A test keeps this page true.
-- Times are milliseconds since 1970 UTC.
-- This install's id: labels its containers.
CREATE TABLE install (
    id TEXT NOT NULL
) STRICT;

-- Every chat that was ever heard of, for `setup`. No message text.
CREATE TABLE chats (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    seen_at INTEGER NOT NULL,
    members INTEGER,
    expires_secs INTEGER
) STRICT;

-- The chats that Kai serves, and what their owner chose for each. web_hosts: names with a space between them.
-- forwards: whether a forwarded message that names Kai calls him. senders: whose messages may call Kai; others: what becomes
-- of the messages of other people; refusals: what those hear who call and may not. folders: a line for each extra folder,
-- such as ro:/srv/recipes.
-- limit_told_at: when its chat was last told that the day's tokens are used up.
-- unread_told_at: when its chat was last told that messages could not be read. unread_more: of how many that have no row in
-- unread it has still to be told. stale_told_at: when the owner was last told that replies were too old to be sent there.
-- stale_more: of how many since the owner has still to be told.
CREATE TABLE groups (
    name TEXT PRIMARY KEY NOT NULL,
    chat TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('main', 'member')),
    trigger TEXT,
    added_at INTEGER NOT NULL,
    away_told_at INTEGER,
    engine TEXT,
    web TEXT NOT NULL DEFAULT 'web' CHECK (web IN ('none', 'allowlist', 'web')),
    web_hosts TEXT NOT NULL DEFAULT '',
    daily_tokens INTEGER,
    outage_told_at INTEGER,
    limit_told_at INTEGER,
    forwards TEXT NOT NULL DEFAULT 'told' CHECK (forwards IN ('told', 'call')),
    unread_told_at INTEGER,
    unread_more INTEGER NOT NULL DEFAULT 0,
    stale_told_at INTEGER,
    stale_more INTEGER NOT NULL DEFAULT 0,
    senders TEXT NOT NULL DEFAULT 'anyone' CHECK (senders IN ('anyone', 'listed', 'owner')),
    others TEXT NOT NULL DEFAULT 'context' CHECK (others IN ('context', 'dropped')),
    refusals TEXT NOT NULL DEFAULT 'silent' CHECK (refusals IN ('silent', 'told')),
    turns_per_hour INTEGER,
    turn_tokens INTEGER,
    folders TEXT NOT NULL DEFAULT '',
    model TEXT
) STRICT;
CREATE UNIQUE INDEX groups_one_main ON groups (role) WHERE role = 'main';

-- The engine's history that belongs to a group; outlives `groups remove`. since_turn: the last turn before the owner began
-- it or returned to it; what was said until then is not told to it. compaction_turn: the turn that puts it into a summary, or 0
-- if that is still to be done; else nothing.
CREATE TABLE sessions (
    group_name TEXT PRIMARY KEY NOT NULL,
    engine_session TEXT NOT NULL,
    since_turn INTEGER NOT NULL DEFAULT 0,
    compaction_turn INTEGER
) STRICT;

-- One row per prompt to an agent. context: 'isolated' if it was in a fresh session, of a task alone. outage: of those that failed, what keeps its messages until they are tried again.
CREATE TABLE turns (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    group_name TEXT NOT NULL,
    began_at INTEGER NOT NULL,
    ended_at INTEGER,
    outcome TEXT CHECK (outcome IN ('answered', 'failed', 'returned', 'lost')),
    input_tokens INTEGER NOT NULL DEFAULT 0,
    cached_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    engine TEXT NOT NULL DEFAULT 'kimi-cli',
    outage TEXT,
    context TEXT NOT NULL DEFAULT 'group' CHECK (context IN ('group', 'isolated'))
) STRICT;
CREATE INDEX turns_open ON turns (id) WHERE ended_at IS NULL;

-- The names of one person (a phone number's JID, a LID) carry the same number, which prompts tell: of everybody who writes.
CREATE TABLE people (
    id TEXT PRIMARY KEY NOT NULL,
    person INTEGER NOT NULL
) STRICT;
CREATE INDEX people_person ON people (person);

-- The linked account: at most one row.
CREATE TABLE account (
    id TEXT NOT NULL,
    lid TEXT,
    name TEXT NOT NULL
) STRICT;

-- How the link to WhatsApp stood when it last changed: at most one row.
CREATE TABLE link (
    state TEXT NOT NULL,
    until INTEGER,
    changed_at INTEGER NOT NULL
) STRICT;

-- Messages of registered chats. pending -> claimed (by a turn) -> done | parked (given up, told to the chat).
-- edits: the message whose new text this is. text_path: the file with all of a text that a prompt told in part. quote_source:
-- whose word it is what was quoted. task_run: the run of a task that wrote it. media_…, quote_media_…: what is attached to
-- it, and to what it quotes; …_words: what a voice note says; …_unheard: why that is not known.
CREATE TABLE "inbox" (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chat TEXT NOT NULL,
    wa_id TEXT NOT NULL,
    sender TEXT NOT NULL,
    sender_name TEXT NOT NULL,
    text TEXT NOT NULL,
    sent_at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    quote_id TEXT,
    quote_sender_name TEXT,
    quote_text TEXT,
    edits TEXT,
    media_kind TEXT CHECK (media_kind IN ('image', 'video', 'voice', 'audio', 'document', 'sticker')),
    media_mime TEXT,
    media_name TEXT,
    media_bytes INTEGER,
    media_handle BLOB,
    media_state TEXT CHECK (media_state IN ('wanted', 'saved', 'missing')),
    media_path TEXT,
    media_missing TEXT,
    wake TEXT NOT NULL CHECK (wake IN ('wakes', 'context')),
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'claimed', 'done', 'parked')),
    turn INTEGER REFERENCES turns (id),
    attempts INTEGER NOT NULL DEFAULT 0,
    forwarded TEXT CHECK (forwarded IN ('once', 'many')),
    text_path TEXT,
    quote_sender TEXT,
    quote_source TEXT CHECK (quote_source IN ('kai', 'chat', 'client')),
    quote_media_kind TEXT CHECK (quote_media_kind IN ('image', 'video', 'voice', 'audio', 'document', 'sticker')),
    quote_media_mime TEXT,
    quote_media_name TEXT,
    quote_media_bytes INTEGER,
    quote_media_handle BLOB,
    quote_media_state TEXT CHECK (quote_media_state IN ('wanted', 'saved', 'missing')),
    quote_media_path TEXT,
    quote_media_missing TEXT, task_run INTEGER, media_words TEXT, media_unheard TEXT, quote_media_words TEXT, quote_media_unheard TEXT,
    UNIQUE (chat, wa_id, sender)
) STRICT;
CREATE INDEX inbox_pending ON inbox (chat, wake, id) WHERE state = 'pending';
CREATE INDEX inbox_claimed ON inbox (turn) WHERE state = 'claimed';
CREATE INDEX inbox_chat ON inbox (chat, id);

-- What Kai says. The message id is chosen when the row is written; every attempt uses it.
-- queued -> sent (handed over) -> acked | nacked (WhatsApp's answer); dead: given up before.
-- message: as it was handed over, to be sealed anew for a device that cannot read it. delivered_at: when the first phone
-- of somebody else had it; read_at: when somebody had read it. chart: of a picture of `/usage`, what it shows.
CREATE TABLE "outbox" (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chat TEXT NOT NULL,
    wa_id TEXT NOT NULL UNIQUE,
    turn INTEGER REFERENCES turns (id),
    kind TEXT NOT NULL DEFAULT 'text' CHECK (kind IN ('text', 'file', 'reaction')),
    text TEXT NOT NULL,
    mentions TEXT,
    path TEXT,
    quote_id TEXT,
    quote_sender TEXT,
    quote_text TEXT,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sent', 'acked', 'nacked', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    sent_at INTEGER,
    error TEXT,
    put_off_at INTEGER,
    pause_millis INTEGER,
    message BLOB,
    delivered_at INTEGER,
    read_at INTEGER,
    chart TEXT
) STRICT;
CREATE INDEX outbox_queued ON outbox (chat, id) WHERE state = 'queued';
CREATE INDEX outbox_sent ON outbox (sent_at) WHERE state = 'sent';

-- Which engine answered last in a group.
CREATE INDEX turns_answered ON turns (group_name, id) WHERE outcome = 'answered';

-- What keeps all chats from being answered, such as a login that Kimi refuses; what is asked meanwhile is kept. One that
-- is over stays, with when the owner was told of it.
CREATE TABLE outages (
    outage TEXT PRIMARY KEY NOT NULL,
    since INTEGER NOT NULL,
    ended_at INTEGER,
    told_at INTEGER,
    since_turn INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What a group used since a moment: the daily limit, `usage`.
CREATE INDEX turns_group ON turns (group_name, began_at);

-- What the agents moved on the web. day: such as 2026-11-28, in the time zone of TZ.
CREATE TABLE web_traffic (
    group_name TEXT NOT NULL,
    day TEXT NOT NULL,
    sent_bytes INTEGER NOT NULL,
    received_bytes INTEGER NOT NULL,
    PRIMARY KEY (group_name, day)
) STRICT;

-- The numbers of people, each given once: a number that is free again is nobody else's.
CREATE TABLE persons (
    id INTEGER PRIMARY KEY AUTOINCREMENT
) STRICT;

-- What nothing behind it is told before. Edits by their message. Quotes of which only a client says what they name.
CREATE INDEX inbox_wanted ON inbox (chat, id)
    WHERE state = 'pending' AND (media_state = 'wanted' OR quote_media_state = 'wanted');
CREATE INDEX inbox_edits ON inbox (chat, edits) WHERE edits IS NOT NULL;
CREATE INDEX inbox_claims ON inbox (chat, quote_id) WHERE state = 'pending' AND quote_source = 'client';

-- Agents that were stopped as they took too much of the machine: the latest time of each group.
CREATE TABLE stops (
    group_name TEXT PRIMARY KEY NOT NULL,
    why TEXT NOT NULL CHECK (why IN ('disk', 'kernel')),
    at INTEGER NOT NULL
) STRICT;

-- Replies that WhatsApp has and no phone yet; all that it has, by chat.
CREATE INDEX outbox_undelivered ON outbox (sent_at) WHERE state = 'acked' AND delivered_at IS NULL;
CREATE INDEX outbox_acked ON outbox (chat, id) WHERE state = 'acked';

-- A reply on the devices of one of the people that it is for; no row where nothing is known. suspected_at: since when
-- there is reason to doubt that the device can read it; suspicions: how often there was. repairs: how often it was
-- sealed anew since; repair_at: when that, or the end of it, is next due.
CREATE TABLE recipients (
    reply INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
    person TEXT NOT NULL,
    phone_at INTEGER,
    companion_at INTEGER,
    suspected_at INTEGER,
    suspected TEXT CHECK (suspected IN ('phone', 'companion')),
    suspicions INTEGER NOT NULL DEFAULT 0,
    repairs INTEGER NOT NULL DEFAULT 0,
    repair_at INTEGER,
    PRIMARY KEY (reply, person)
) STRICT;
CREATE INDEX recipients_person ON recipients (person, reply);
CREATE INDEX recipients_repair ON recipients (repair_at) WHERE repair_at IS NOT NULL;

-- Messages of registered chats that were sent and could not be read. They are asked for at ask_at; handle: how the bridge
-- does that. told_at: when the chat was told that one is missing. The row goes when the message comes, or after 14 days.
CREATE TABLE unread (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chat TEXT NOT NULL,
    wa_id TEXT NOT NULL,
    sender_name TEXT NOT NULL,
    sent_at INTEGER NOT NULL,
    noticed_at INTEGER NOT NULL,
    ask_at INTEGER NOT NULL,
    asked INTEGER NOT NULL DEFAULT 0,
    told_at INTEGER,
    handle BLOB NOT NULL,
    UNIQUE (chat, wa_id)
) STRICT;

-- What Kai does on time, in the chat of a group. schedule, late: in the words of `nanokimi tasks`; zone: an IANA name.
-- context: whether its runs are in the chat's own session, or each in a fresh one; last_answer: what the last of those has
-- said, at last_answer_at. only_if: a command of the container that says whether a run begins. next_at: when it is due next, of an active one. failures: how many in a row.
-- paused_why: 'asked' by somebody, or since runs failed or used too many tokens, of which its chat is told at pause_told_at;
-- NULL if its times could not be read.
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    group_name TEXT NOT NULL REFERENCES groups (name) ON DELETE CASCADE,
    text TEXT NOT NULL,
    schedule TEXT NOT NULL,
    zone TEXT NOT NULL,
    late TEXT NOT NULL DEFAULT 'once',
    context TEXT NOT NULL DEFAULT 'group' CHECK (context IN ('group', 'isolated')),
    max_tokens INTEGER,
    state TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'done')),
    paused_why TEXT CHECK (paused_why IN ('asked', 'failures', 'tokens')),
    pause_told_at INTEGER,
    next_at INTEGER,
    failures INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    last_answer TEXT,
    last_answer_at INTEGER,
    only_if TEXT
) STRICT;
CREATE INDEX tasks_due ON tasks (next_at) WHERE state = 'active';
CREATE INDEX tasks_group ON tasks (group_name);
CREATE INDEX tasks_untold ON tasks (id) WHERE state = 'paused' AND pause_told_at IS NULL;

-- The times that a task was due, each once. due -> running (told to the agent by this turn) -> answered | failed | unknown
-- (nanokimi was killed meanwhile; its chat is told at told_at, and it is not repeated). skipped: it was too late for the
-- task's rule, another run of it waited or went on, the owner stopped it, or its task's command said no; why: which of these.
CREATE TABLE task_runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    due_at INTEGER NOT NULL,
    late_millis INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('due', 'running', 'answered', 'failed', 'unknown', 'skipped')),
    turn INTEGER,
    tokens INTEGER NOT NULL DEFAULT 0,
    ended_at INTEGER,
    told_at INTEGER,
    why TEXT,
    UNIQUE (task, due_at)
) STRICT;
CREATE INDEX task_runs_open ON task_runs (task) WHERE state IN ('due', 'running');
CREATE INDEX task_runs_running ON task_runs (turn) WHERE state = 'running';
CREATE INDEX task_runs_untold ON task_runs (id) WHERE state = 'unknown' AND told_at IS NULL;
CREATE INDEX inbox_task_run ON inbox (task_run) WHERE task_run IS NOT NULL;

-- The people who may ask in a group whose senders are 'listed': one of the names of each.
CREATE TABLE allowed_senders (
    group_name TEXT NOT NULL,
    person TEXT NOT NULL,
    PRIMARY KEY (group_name, person)
) STRICT;

-- When a person was last told in a group why Kai does not answer them.
CREATE TABLE sender_notices (
    group_name TEXT NOT NULL,
    person TEXT NOT NULL,
    why TEXT NOT NULL CHECK (why IN ('not_allowed', 'too_many_calls')),
    told_at INTEGER NOT NULL,
    PRIMARY KEY (group_name, person, why)
) STRICT;

-- The calls of the last hour in groups that limit them for each person.
CREATE TABLE sender_calls (
    group_name TEXT NOT NULL,
    person TEXT NOT NULL,
    called_at INTEGER NOT NULL
) STRICT;
CREATE INDEX sender_calls_group ON sender_calls (group_name, called_at);

-- The sessions of a group that the owner has begun or left, with the names that the owner knows them by. left_nth: counts up
-- with each one that is left, so that the highest is the one to go back to.
CREATE TABLE kept_sessions (
    group_name TEXT NOT NULL,
    engine_session TEXT NOT NULL,
    name TEXT NOT NULL COLLATE NOCASE,
    left_nth INTEGER,
    PRIMARY KEY (group_name, engine_session),
    UNIQUE (group_name, name)
) STRICT;

-- The questions to the owner in the main channel, and how each has ended. asker: the group whose agent has asked, with the
-- chat that it had then; NULL if nanokimi itself has. action, target_chat, target_group, text: what is done if the owner
-- allows it. about: the chat or the person, as the question calls it. question_id: the question's message, which the
-- owner answers. void: the owner has allowed it, and it was not done, as things had changed.
CREATE TABLE approvals (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    asker TEXT,
    asker_chat TEXT,
    action TEXT NOT NULL CHECK (action IN ('send_message', 'remove_group', 'serve_chat', 'ask_owner')),
    target_chat TEXT,
    target_group TEXT,
    text TEXT NOT NULL DEFAULT '',
    about TEXT NOT NULL,
    question_id TEXT NOT NULL UNIQUE,
    asked_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'granted', 'refused', 'expired', 'void')),
    ended_at INTEGER
) STRICT;
CREATE INDEX approvals_open ON approvals (expires_at) WHERE state = 'open';
CREATE INDEX approvals_chat ON approvals (target_chat) WHERE action = 'serve_chat';

-- What a turn has said.
CREATE INDEX outbox_turn ON outbox (turn) WHERE turn IS NOT NULL;

-- The keys of the gateway's clients. hash: SHA-256 of the key in hexadecimal digits; the key itself is nowhere. models: names
-- with commas between them; NULL if the key may ask for all. identity: as what its requests reach Kimi.
CREATE TABLE gateway_keys (
    name TEXT PRIMARY KEY NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    daily_tokens INTEGER,
    models TEXT,
    identity TEXT NOT NULL CHECK (identity IN ('own', 'kimi-cli')),
    added_at INTEGER NOT NULL
) STRICT;

-- What each key of the gateway used in a day of this install's time zone. It outlives the key.
CREATE TABLE gateway_usage (
    key_name TEXT NOT NULL,
    day TEXT NOT NULL,
    requests INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    PRIMARY KEY (key_name, day)
) STRICT;
