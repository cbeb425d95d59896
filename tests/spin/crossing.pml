/* Rules 1 and 2 of crossing between shards, with the wake-up protocol, as one small world: three shards, a client on each.
 *
 * What is modelled, and what each step mirrors:
 *   Shard            one turn of net/reactor.cc (Reactor::turn, then run) over core/shard.cc; every load or store another shard
 *                    may race with is a step of its own, everything private to a shard is one d_step
 *   interest[], deliver[]
 *                    core/ring.h: len() is the producer's tail, *_pub the published tail, *_vis what of it the consumer can see
 *                    yet (less than *_pub only while the store waits in the producer's store buffer)
 *   i_over[], d_over[]
 *                    the overflow lists of Shard::Peer
 *   sleeping, pend, efd
 *                    Shard::sleeping_, Backend::wake_pending_ and the eventfd
 *   Memory           store buffers emptying, in the order C++ promises: release stores in order, the relaxed flag whenever
 *   Client 0..2      bounded scripts; what one client receives may make another one speak (Client 2 in FLUSH and PONG)
 *
 * Scenarios (exactly one is defined):
 *   CHAIN   client 0 subscribes its inbox and sends a request; client 1 passes it on; client 2 answers to the inbox        (P1)
 *   PONG    client 0 subscribes its inbox and flushes; after its PONG client 2 publishes to the inbox                      (P1)
 *   FLUSH   client 0 publishes two messages and flushes; after its PONG client 2 flushes                                    (P2)
 *   STUCK   as FLUSH, with subscriptions in front that do not fit the interest rings                                       (P2)
 *   CROSS   clients 0 and 2 flood each other through full rings                                                        (P3, P4)
 * P1: whoever answers finds the inbox.  P2: at a reader's PONG it has had the messages, in order.  P3: nobody sleeps over a
 * delivery: when nothing can move any more, every script is done and every delivery ring is empty; interest may be left that was
 * told quietly, without waking (when that is done is the model's free choice: core/shard.h has it by bytes, and not to a shard
 * with listeners).  P4: then the overflow lists are empty, too.
 *
 * Each rule has a switch that removes it (run.sh): LATE_ACQUIRE THINK_BEFORE_DRAIN DELIVERIES_FIRST FLUSH_BEFORE_PUBLISH
 * PUBLISH_WHILE_STUCK FLUSH_WHILE_STUCK QUIET_WHILE_STUCK NO_SESSION_HOLD NO_SLEEPER_FENCE NO_WAKER_FENCE CHECK_BEFORE_FLAG WAKE_NOBODY NO_RETRY.
 * LATE_ACQUIRE, THINK_BEFORE_DRAIN, DELIVERIES_FIRST and the three of rule 2 are what core::CrossingRules and the turn could get
 * wrong; the rest is the wake-up protocol.
 * Left out: rules 3 and 4 (tests/core/crossing_test.cc), releases, sizes, the mailbox (it wakes as publish() does). Taking the delivery snapshot before the interest drain only matters
 * to rule 3, because a delivery itself is matched against the target's own subscriptions.
 */

#define N 3
#ifndef CAPACITY
#define CAPACITY 1 /* records per ring */
#endif
#define AT(from, to) ((from) * N + (to))

/* What clients send, what travels between shards and what clients receive. */
#define SUB_FILLER 1
#define SUB_INBOX 2
#define PING 3
#define PONG_LINE 4
#define REQUEST 5  /* to the subscriber on shard 1 */
#define FORWARD 6  /* to the subscriber on shard 2 */
#define ANSWER 7   /* to the inbox on shard 0, if known */
#define FIRST 8    /* to the subscriber on shard 2 */
#define SECOND 9   /* likewise */
#define BACK_1 10  /* to the subscriber on shard 0 */
#define BACK_2 11  /* likewise */

chan interest[9] = [CAPACITY] of { byte };
chan deliver[9] = [CAPACITY] of { byte };
byte i_pub[9], i_vis[9], d_pub[9], d_vis[9];
chan i_over[9] = [3] of { byte };
chan d_over[9] = [3] of { byte };

chan input[N] = [4] of { byte };   /* a client's bytes on their way to its shard */
chan output[N] = [4] of { byte };  /* the other direction */
chan outbox[N] = [4] of { byte };  /* of the shard's session */

bit sleeping[N], flag_store[N];  /* flag_store: sleeping = 1 still waits in the store buffer */
bit pend[N], efd[N];
bit knows[N];                    /* the replica: is the inbox on shard 0 known here? */
bit held[N];                     /* the session is held by kHoldRing */
bit i_stuck[N], d_stuck[N];

bit first_pong;   /* client 0 has its PONG */
byte done;        /* scripts that have ended */

/* ------------------------------------------------------------------------------------------------------- the producer */

/* Shard::tell_interest for one peer. */
inline tell(to, what) {
  if
  :: len(i_over[AT(s, to)]) == 0 && len(interest[AT(s, to)]) < CAPACITY -> interest[AT(s, to)]!what
  :: else -> i_over[AT(s, to)]!what; i_stuck[s] = 1
  fi
}

/* Shard::begin_delivery, write_delivery and end_delivery; the cause is the shard's only session. */
inline cross(to, what) {
  if
  :: len(d_over[AT(s, to)]) == 0 && len(deliver[AT(s, to)]) < CAPACITY -> deliver[AT(s, to)]!what
  :: else ->
    d_over[AT(s, to)]!what; d_stuck[s] = 1;
#ifndef NO_SESSION_HOLD
    held[s] = 1
#endif
  fi
}

/* ClientSession::feed for one operation. A message nobody here knows a subscriber of is gone: P1 says that never happens. */
inline think(what) {
  if
  :: what == SUB_FILLER || what == SUB_INBOX -> /* only client 0 subscribes */
    if :: what == SUB_INBOX -> knows[s] = 1 :: else fi;
    tell(1, what); tell(2, what)
  :: what == PING -> outbox[s]!PONG_LINE
  :: what == REQUEST -> cross(1, what)
  :: what == FORWARD -> cross(2, what)
  :: what == ANSWER -> assert(knows[s]); cross(0, what)
  :: what == FIRST || what == SECOND ->
    cross(2, what)
  :: what == BACK_1 || what == BACK_2 -> cross(0, what)
  fi
}

/* move_records */
inline move(list, ring) {
  do
  :: len(list) > 0 && len(ring) < CAPACITY -> list?moving; ring!moving; busy = 1
  :: else -> break
  od
}

inline drain_interest(from) {
  do
  :: i_vis[AT(from, s)] > 0 ->
    interest[AT(from, s)]?moving; i_vis[AT(from, s)]--; i_pub[AT(from, s)]--;
    if :: moving == SUB_INBOX -> knows[s] = 1 :: else fi;
    busy = 1
  :: else -> break
  od
}

inline drain_deliveries(from, limit) {
  do
  :: limit > 0 ->
    deliver[AT(from, s)]?moving; limit--; d_vis[AT(from, s)]--; d_pub[AT(from, s)]--;
    outbox[s]!moving; busy = 1
  :: else -> break
  od
}

/* Backend::acquire: sockets are read, nothing is parsed. A held session is paused. */
inline acquire_input() { acquired = (held[s] -> 0 : len(input[s])) }

/* The store buffer of shard s is emptied: by a fence or a system call. */
inline see_all() {
  i_vis[AT(s, a)] = i_pub[AT(s, a)]; i_vis[AT(s, b)] = i_pub[AT(s, b)];
  d_vis[AT(s, a)] = d_pub[AT(s, a)]; d_vis[AT(s, b)] = d_pub[AT(s, b)]
}

#ifdef FLUSH_WHILE_STUCK
#define MAY_FLUSH (!held[s])
#else
#define MAY_FLUSH (!held[s] && !i_stuck[s])
#endif

/* Reactor::flush. */
inline flush() {
  if
  :: MAY_FLUSH && len(outbox[s]) > 0 ->
    see_all();
    do :: len(outbox[s]) > 0 -> outbox[s]?moving; output[s]!moving :: else -> break od;
    moving = 0
  :: else
  fi
}

/* Shard::publish, one ring. With the fence behind them the stores need no store buffer: nothing is loaded in between. */
#define INTEREST_WAITS(to) (len(interest[AT(s, to)]) != i_pub[AT(s, to)])
inline publish_interest(to, loudly) {
  i_pub[AT(s, to)] = len(interest[AT(s, to)]); told = told | (loudly << to);
#ifndef NO_WAKER_FENCE
  i_vis[AT(s, to)] = i_pub[AT(s, to)]
#endif
}

#ifdef PUBLISH_WHILE_STUCK
#define DELIVERY_WAITS(to) (len(deliver[AT(s, to)]) != d_pub[AT(s, to)])
#else
#define DELIVERY_WAITS(to) (!i_stuck[s] && len(deliver[AT(s, to)]) != d_pub[AT(s, to)])
#endif
inline publish_deliveries(to) {
  d_pub[AT(s, to)] = len(deliver[AT(s, to)]); told = told | (1 << to);
#ifndef NO_WAKER_FENCE
  d_vis[AT(s, to)] = d_pub[AT(s, to)]
#endif
}

#define ANY_INTEREST (INTEREST_WAITS(a) || INTEREST_WAITS(b))
#define ANY_DELIVERY (DELIVERY_WAITS(a) || DELIVERY_WAITS(b))
#ifdef DELIVERIES_FIRST
#define INTEREST_TURN (!ANY_DELIVERY)
#define DELIVERY_TURN true
#else
#define INTEREST_TURN true
#define DELIVERY_TURN (!ANY_INTEREST)
#endif
#define PUBLISHED (!ANY_INTEREST && !ANY_DELIVERY)

/* Shard::publish, last part, for one peer: the flag is taken; who took it calls Backend::wake. */
inline take_flag(to) {
  told = told & ~(1 << to);
#ifndef WAKE_NOBODY
  if :: sleeping[to] -> sleeping[to] = 0; waking = to + 1 :: else fi
#endif
}

/* Room for something that waits: the retry of Shard::next_deadline_ns finds it. Retries that find none change nothing, so the model
 * leaves them out; a shard that waits for a sleeping one is then a deadlock instead of an endless loop. */
#define ROOM(list, ring) (len(list) > 0 && len(ring) < CAPACITY)
#ifdef NO_RETRY
#define RETRY false
#else
#define RETRY (ROOM(i_over[AT(s, a)], interest[AT(s, a)]) || ROOM(i_over[AT(s, b)], interest[AT(s, b)]) || \
               ROOM(d_over[AT(s, a)], deliver[AT(s, a)]) || ROOM(d_over[AT(s, b)], deliver[AT(s, b)]))
#endif
#define VISIBLE (i_vis[AT(a, s)] > 0 || i_vis[AT(b, s)] > 0 || d_vis[AT(a, s)] > 0 || d_vis[AT(b, s)] > 0)

/* -------------------------------------------------------------------------------------------------------------- the turn */

proctype Shard(byte s; byte a; byte b) {
  byte moving, told, waking; /* told: peers something was published to; waking: 1 + the shard whose flag we took */
  byte acquired, limit_a, limit_b;
  bit busy;

turn:
  /* Shard::awake, then Backend::acquire: the eventfd is read, then wake_pending_ is cleared. */
  if
  :: d_step { efd[s] -> efd[s] = 0; sleeping[s] = 0; flag_store[s] = 0 }
    d_step { pend[s] = 0; busy = 1; acquire_input() }
  :: d_step { !efd[s] -> sleeping[s] = 0; flag_store[s] = 0; busy = 0; acquire_input() }
  fi;
  /* Shard::drain_rings */
  d_step { limit_a = d_vis[AT(a, s)]; limit_b = d_vis[AT(b, s)] }
#ifndef THINK_BEFORE_DRAIN
  d_step { drain_interest(a); drain_interest(b); moving = 0 }
#endif
#ifdef LATE_ACQUIRE
  d_step { acquire_input() }
#endif
  d_step {
    drain_deliveries(a, limit_a);
    drain_deliveries(b, limit_b);
    /* Reactor::on_event */
    do
    :: acquired > 0 -> acquired--; input[s]?moving; think(moving); busy = 1
    :: else -> break
    od;
    /* Shard::end_turn: move_overflow, release_held */
    if
    :: i_stuck[s] || d_stuck[s] ->
      move(i_over[AT(s, a)], interest[AT(s, a)]);
      move(i_over[AT(s, b)], interest[AT(s, b)]);
      move(d_over[AT(s, a)], deliver[AT(s, a)]);
      move(d_over[AT(s, b)], deliver[AT(s, b)]);
      i_stuck[s] = (len(i_over[AT(s, a)]) + len(i_over[AT(s, b)]) > 0);
      d_stuck[s] = (len(d_over[AT(s, a)]) + len(d_over[AT(s, b)]) > 0);
      if :: !i_stuck[s] && !d_stuck[s] -> held[s] = 0 :: else fi
    :: else
    fi;
#ifndef QUIET_WHILE_STUCK
    /* What does not fit waits for the peer to make room. */
    told = ((len(i_over[AT(s, a)]) > 0) << a) | ((len(i_over[AT(s, b)]) > 0) << b);
#endif
    moving = 0
  }
#ifdef THINK_BEFORE_DRAIN
  d_step { drain_interest(a); drain_interest(b); moving = 0 }
#endif
#ifdef FLUSH_BEFORE_PUBLISH
  d_step { flush() }
#endif

  do
  :: d_step { INTEREST_TURN && INTEREST_WAITS(a) -> publish_interest(a, 0) }
  :: d_step { INTEREST_TURN && INTEREST_WAITS(a) -> publish_interest(a, 1) }
  :: d_step { INTEREST_TURN && !INTEREST_WAITS(a) && INTEREST_WAITS(b) -> publish_interest(b, 0) }
  :: d_step { INTEREST_TURN && !INTEREST_WAITS(a) && INTEREST_WAITS(b) -> publish_interest(b, 1) }
  :: d_step { DELIVERY_TURN && DELIVERY_WAITS(a) -> publish_deliveries(a) }
  :: d_step { DELIVERY_TURN && !DELIVERY_WAITS(a) && DELIVERY_WAITS(b) -> publish_deliveries(b) }
  :: d_step { PUBLISHED && waking == 0 && (told & (1 << a)) -> take_flag(a) }
  :: d_step { PUBLISHED && waking == 0 && !(told & (1 << a)) && (told & (1 << b)) -> take_flag(b) }
  :: waking > 0 -> /* Backend::wake */
    if
    :: d_step { !pend[waking - 1] -> pend[waking - 1] = 1 } d_step { efd[waking - 1] = 1; waking = 0 }
    :: d_step { pend[waking - 1] -> waking = 0 }
    fi
  :: d_step { PUBLISHED && told == 0 && waking == 0 && busy -> flush(); busy = 0 } goto turn
  :: d_step { PUBLISHED && told == 0 && waking == 0 && !busy -> flush();
      /* Shard::try_sleep */
#ifdef CHECK_BEFORE_FLAG
#elif defined(NO_SLEEPER_FENCE)
      flag_store[s] = 1
#else
      sleeping[s] = 1
#endif
    } break
  od;
  if
  :: VISIBLE -> goto turn
  :: !VISIBLE
  fi;
#ifdef CHECK_BEFORE_FLAG
  sleeping[s] = 1;
#endif
end_park: /* Backend::park */
  (efd[s] || (len(input[s]) > 0 && !held[s]) || RETRY);
  goto turn
}

#if defined(NO_SLEEPER_FENCE) || defined(NO_WAKER_FENCE)
/* Interest tails become visible before the delivery tails stored after them: both are release stores. */
#define I_WAITS(s) (i_vis[AT(s, 0)] != i_pub[AT(s, 0)] || i_vis[AT(s, 1)] != i_pub[AT(s, 1)] || i_vis[AT(s, 2)] != i_pub[AT(s, 2)])
proctype Memory(byte s) {
end_memory:
  do
  :: d_step { flag_store[s] -> flag_store[s] = 0; sleeping[s] = 1 }
  :: d_step { I_WAITS(s) ->
      i_vis[AT(s, 0)] = i_pub[AT(s, 0)]; i_vis[AT(s, 1)] = i_pub[AT(s, 1)]; i_vis[AT(s, 2)] = i_pub[AT(s, 2)] }
  :: d_step { !I_WAITS(s) && d_vis[AT(s, 0)] != d_pub[AT(s, 0)] -> d_vis[AT(s, 0)] = d_pub[AT(s, 0)] }
  :: d_step { !I_WAITS(s) && d_vis[AT(s, 1)] != d_pub[AT(s, 1)] -> d_vis[AT(s, 1)] = d_pub[AT(s, 1)] }
  :: d_step { !I_WAITS(s) && d_vis[AT(s, 2)] != d_pub[AT(s, 2)] -> d_vis[AT(s, 2)] = d_pub[AT(s, 2)] }
  od
}
#endif

/* ------------------------------------------------------------------------------------------------------------ the clients */

#define SEND(c, what) input[c]!what
#define EXPECT(c, what) atomic { output[c]?got; assert(got == what); got = 0 }

proctype Client0() {
  byte got;
#ifdef CHAIN
  atomic { SEND(0, SUB_FILLER); SEND(0, SUB_INBOX) } SEND(0, REQUEST);
  EXPECT(0, ANSWER);
#endif
#ifdef PONG
  atomic { SEND(0, SUB_FILLER); SEND(0, SUB_INBOX) } SEND(0, PING);
  EXPECT(0, PONG_LINE); first_pong = 1;
  EXPECT(0, ANSWER);
#endif
#ifdef FLUSH
  SEND(0, FIRST); atomic { SEND(0, SECOND); SEND(0, PING) }
  EXPECT(0, PONG_LINE); first_pong = 1;
#endif
#ifdef STUCK
  atomic { SEND(0, SUB_FILLER); SEND(0, SUB_FILLER) } atomic { SEND(0, FIRST); SEND(0, PING) }
  EXPECT(0, PONG_LINE); first_pong = 1;
#endif
#ifdef CROSS
  atomic { SEND(0, FIRST); SEND(0, SECOND) }
  EXPECT(0, BACK_1); EXPECT(0, BACK_2);
#endif
  done++
}

#if defined(FLUSH) || defined(STUCK)
inline reader(c) { /* its PING leaves once the publisher has its PONG; messages may come earlier */
  do
  :: atomic { first_pong && !asked -> asked = 1 } SEND(c, PING)
  :: atomic { output[c]?got;
      if
      :: got == FIRST -> assert(had == 0); had = 1
      :: got == SECOND -> assert(had == 1); had = 2
      :: got == PONG_LINE ->
#ifdef FLUSH
        assert(had == 2);
#else
        assert(had == 1);
#endif
        break
      fi }
  od
}
#endif

proctype Client1() {
  byte got;
#ifdef CHAIN
  EXPECT(1, REQUEST); SEND(1, FORWARD);
#endif
  done++
}

proctype Client2() {
  byte got, had;
  bit asked;
#ifdef CHAIN
  EXPECT(2, FORWARD); SEND(2, ANSWER);
#endif
#ifdef PONG
  first_pong; SEND(2, ANSWER);
#endif
#if defined(FLUSH) || defined(STUCK)
  reader(2);
#endif
#ifdef CROSS
  atomic { SEND(2, BACK_1); SEND(2, BACK_2) }
  EXPECT(2, FIRST); EXPECT(2, SECOND);
#endif
  done++
}

/* ---------------------------------------------------------------------------------------------------------- P3 and P4 */

#define EMPTY(s) (len(deliver[AT(s, 0)]) + len(deliver[AT(s, 1)]) + len(deliver[AT(s, 2)]) == 0)
#define DRAINED(s) (len(i_over[AT(s, 0)]) + len(i_over[AT(s, 1)]) + len(i_over[AT(s, 2)]) + \
                    len(d_over[AT(s, 0)]) + len(d_over[AT(s, 1)]) + len(d_over[AT(s, 2)]) == 0 && !held[s])

init {
  atomic {
#if defined(NO_SLEEPER_FENCE) || defined(NO_WAKER_FENCE)
    run Memory(0); run Memory(1); run Memory(2);
#endif
    run Shard(0, 1, 2); run Shard(1, 0, 2); run Shard(2, 0, 1);
    run Client0(); run Client1(); run Client2()
  }
  timeout; /* nothing can move any more */
  assert(EMPTY(0) && EMPTY(1) && EMPTY(2));
  assert(DRAINED(0) && DRAINED(1) && DRAINED(2));
  assert(done == N)
}
