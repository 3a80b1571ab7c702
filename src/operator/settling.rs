//! Children first: when a status waits for the children that are being made.
//!
//! What is written comes back as events, each of them with something new to say: told at once it would be three writes of
//! status where one is enough, and where a thousand Pipelines are created, these would keep the children of the last from
//! being made. So a status waits for a lull, in which nobody has written a child. Nobody looks meanwhile to see whether it
//! has come: [`Settling::wake`] says so to all that wait. Called by the reconciles; errors are told at once.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{concern::Concerned, watch::Triggers};
use crate::domain::control::ObjectRef;

/// Nobody has written a child for so long: a lull.
const LULL: Duration = Duration::from_secs(1);
/// After so long a status waits only for its turn among those that have waited as long.
const LONG: Duration = Duration::from_secs(10);
/// How often it is somebody's turn.
///
/// Trap: a thousand Pipelines created together have waited long together. All of them told at once, with the children of the
/// last still to be made, took as long as the children of all.
const TURN: Duration = Duration::from_millis(50);

/// What was written comes back by the watches within so long, in as many events as there are children, and each of them
/// asks for a look at all of them.
const ECHO: Duration = Duration::from_secs(1);

/// Who is not looked at for so long after he was woken is gone.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// Whose status waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A Pipeline's.
    Pipeline(ObjectRef),
    /// A Camera's.
    Camera(ObjectRef),
}

impl Whose {
    fn uid(&self) -> &str {
        match self {
            Self::Pipeline(object) | Self::Camera(object) => &object.uid,
        }
    }
}

/// Which statuses wait.
#[derive(Debug, Default)]
pub struct Settling {
    state: Mutex<State>,
    /// Somebody began to wait.
    begun: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By uid.
    waiting: HashMap<String, Waiting>,
    /// When anybody wrote a child.
    last_write: Option<Instant>,
    /// When children of this object were written, by uid.
    echoes: HashMap<String, Instant>,
}

#[derive(Debug)]
struct Waiting {
    whose: Whose,
    until: Until,
    /// Since when its time has come.
    woken: Option<Instant>,
}

/// What a status waits for.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// For a lull, since then.
    Lull(Instant),
    /// For the broker's answer, until then.
    Answer(Instant),
}

impl State {
    /// How much longer, unless its turn comes before.
    fn left(&self, waiting: &Waiting, now: Instant) -> Option<Duration> {
        let until = match waiting.until {
            _ if waiting.woken.is_some() => return None,
            Until::Lull(since) => self.last_write.map_or(since, |write| write.max(since)) + LULL,
            Until::Answer(until) => until,
        };
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

impl Settling {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has everybody reconciled whose status has waited, as soon as its time has come.
    pub async fn wake(&self, triggers: &Triggers) -> Infallible {
        loop {
            let (whose, next) = self.due(Instant::now());
            let mut concerned = Concerned::default();
            for whose in whose {
                match whose {
                    Whose::Pipeline(pipeline) => drop(concerned.pipelines.insert(pipeline)),
                    Whose::Camera(camera) => drop(concerned.cameras.insert(camera)),
                }
            }
            triggers.all(concerned).await;
            match next {
                // Who begins to wait meanwhile has a lull before him, and this is no longer than that.
                Some(next) => tokio::time::sleep(next.max(TURN)).await,
                None => self.begun.notified().await,
            }
        }
    }

    /// Whose time has come since the last call, and how long it is until the next one's comes.
    fn due(&self, now: Instant) -> (Vec<Whose>, Option<Duration>) {
        let mut state = self.state();
        let (mut due, mut next) = (Vec::new(), None::<Duration>);
        let mut later = |left: Duration| next = Some(next.map_or(left, |next| next.min(left)));
        let mut longest = None::<(Instant, String)>;
        let mut waiting = std::mem::take(&mut state.waiting);
        // A look that was under way when its object went entered it again: nobody else takes it out.
        waiting.retain(|_, waiting| waiting.woken.is_none_or(|woken| now.duration_since(woken) < FORGOTTEN));
        state.echoes.retain(|_, written| now.duration_since(*written) < ECHO);
        for (uid, waiting) in waiting.iter_mut().filter(|(_, waiting)| waiting.woken.is_none()) {
            let Some(left) = state.left(waiting, now) else {
                waiting.woken = Some(now);
                due.push(waiting.whose.clone());
                continue;
            };
            later(left);
            let Until::Lull(since) = waiting.until else { continue };
            match (since + LONG).checked_duration_since(now).filter(|left| !left.is_zero()) {
                Some(left) => later(left),
                None if longest.as_ref().is_none_or(|(longest, _)| since < *longest) => {
                    longest = Some((since, uid.clone()));
                }
                None => {}
            }
        }
        if let Some(waiting) = longest.and_then(|(_, uid)| waiting.get_mut(&uid)) {
            waiting.woken = Some(now);
            due.push(waiting.whose.clone());
            later(TURN);
        }
        state.waiting = waiting;
        (due, next)
    }

    /// A child was written.
    pub fn wrote(&self, now: Instant) {
        self.state().last_write = Some(now);
    }

    /// How long it takes until children that were written for `uid` are seen by the watches: a look before that would find
    /// them missing and write them again. `again`: they were just now, or the look that was just taken was too early.
    pub fn echo(&self, uid: &str, again: bool, now: Instant) -> Option<Duration> {
        let mut state = self.state();
        if again {
            state.echoes.insert(uid.to_owned(), now);
        }
        let left = (*state.echoes.get(uid)? + ECHO).checked_duration_since(now).filter(|left| !left.is_zero());
        if left.is_none() {
            state.echoes.remove(uid);
        }
        left
    }

    /// This status waits for a lull from now on, if it does not yet: its object is new, or children were written for it.
    ///
    /// Trap: counted from the first time in a row, or a second writer who fights over a child would keep the status from
    /// ever saying so.
    pub fn begin(&self, whose: &Whose, now: Instant) {
        let mut state = self.state();
        if !state.waiting.contains_key(whose.uid()) {
            let waiting = Waiting { whose: whose.clone(), until: Until::Lull(now), woken: None };
            state.waiting.insert(whose.uid().to_owned(), waiting);
            self.begun.notify_one();
        }
    }

    /// Does this status wait still? `false` ends the wait: it is told now.
    pub fn waits(&self, whose: &Whose, now: Instant) -> bool {
        let mut state = self.state();
        let waits = state.waiting.get(whose.uid()).is_some_and(|waiting| state.left(waiting, now).is_some());
        if !waits {
            state.waiting.remove(whose.uid());
            if state.waiting.is_empty() {
                // A thousand that waited together leave their room behind.
                state.waiting.shrink_to_fit();
            }
        }
        waits
    }

    /// May the broker be asked for what is new of the object `uid`, or does that wait as its status does? `wrote`: its
    /// children were written just now.
    ///
    /// A queue is needed when its pod runs, seconds later; a broker that declares a thousand of them takes the processor
    /// that the API server needs to make the children of the last.
    pub fn may_ask(&self, uid: &str, wrote: bool, now: Instant) -> bool {
        let state = self.state();
        state.waiting.get(uid).map_or(!wrote, |waiting| state.left(waiting, now).is_none())
    }

    /// The broker was just asked for what is new of this object: its status waits for the answer.
    ///
    /// Trap: it waits so once, or cameras that come one by one would keep the status from ever being told.
    pub fn waits_for_answer(&self, whose: &Whose, now: Instant) -> bool {
        let mut state = self.state();
        let waiting = Waiting { whose: whose.clone(), until: Until::Answer(now + LULL), woken: None };
        let before = state.waiting.insert(whose.uid().to_owned(), waiting);
        if matches!(before, Some(Waiting { until: Until::Answer(_), .. })) {
            state.waiting.remove(whose.uid());
            return false;
        }
        self.begun.notify_one();
        true
    }

    /// `uid` is gone.
    pub fn forget(&self, uid: &str) {
        let mut state = self.state();
        state.waiting.remove(uid);
        state.echoes.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::operator::watch;

    fn pipeline(uid: &str) -> Whose {
        Whose::Pipeline(ObjectRef { namespace: "n".into(), name: uid.into(), uid: uid.into() })
    }

    fn milliseconds(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A look that has written children, or is the first at a new object: does the status wait?
    fn begins(settling: &Settling, whose: &Whose, now: Instant) -> bool {
        settling.begin(whose, now);
        settling.waits(whose, now)
    }

    /// Another look.
    fn still(settling: &Settling, whose: &Whose, now: Instant) -> bool {
        settling.waits(whose, now)
    }

    /// Names of those whose time has come, and how long until the next one's.
    fn due(settling: &Settling, now: Instant) -> (Vec<String>, Option<Duration>) {
        let (due, next) = settling.due(now);
        let mut due: Vec<_> = due.iter().map(|whose| whose.uid().to_owned()).collect();
        due.sort();
        (due, next)
    }

    #[test]
    fn a_status_waits_until_nobody_has_written_a_child_for_a_second() {
        let (settling, begin) = (Settling::default(), Instant::now());
        let at = |moment| begin + milliseconds(moment);
        let [a, b, c] = ["a", "b", "c"].map(pipeline);
        assert!(!still(&settling, &a, at(0)), "nothing was written");
        settling.wrote(at(0));
        assert!(begins(&settling, &a, at(0)));
        assert!(!still(&settling, &b, at(0)), "another object, which has nothing new");
        settling.wrote(at(700));
        assert!(begins(&settling, &c, at(700)));
        assert!(still(&settling, &a, at(1_600)), "somebody else's child");
        assert!(!still(&settling, &a, at(1_700)));
        assert!(!still(&settling, &a, at(1_800)), "it has been told");
        settling.forget("c");
        assert!(!still(&settling, &c, at(900)));
    }

    /// A thousand that wait once asked every second, each of them, whether it still is too early.
    #[test]
    fn who_waits_is_woken_once_when_his_time_has_come() {
        let (settling, begin) = (Settling::default(), Instant::now());
        let at = |moment| begin + milliseconds(moment);
        let [a, b] = ["a", "b"].map(pipeline);
        assert_eq!(due(&settling, at(0)), (vec![], None));
        settling.wrote(at(0));
        assert!(begins(&settling, &a, at(0)) && begins(&settling, &b, at(300)));
        assert_eq!(due(&settling, at(300)), (vec![], Some(milliseconds(700))));
        settling.wrote(at(900));
        assert_eq!(due(&settling, at(1_000)), (vec![], Some(milliseconds(900))));
        assert_eq!(due(&settling, at(1_900)), (vec!["a".into(), "b".into()], None));
        assert_eq!(due(&settling, at(1_950)), (vec![], None), "once");
        // A child that is written before they are looked at does not make them wait again.
        settling.wrote(at(1_960));
        assert!(!still(&settling, &a, at(1_970)) && !begins(&settling, &b, at(1_970)));
        assert!(!still(&settling, &a, at(1_980)), "it has been told");
    }

    /// The sleep of the one who wakes is not cut short by who begins to wait.
    #[test]
    fn nobody_who_begins_to_wait_is_due_before_those_that_wait_already() {
        let (settling, begin) = (Settling::default(), Instant::now());
        settling.wrote(begin);
        assert!(begins(&settling, &pipeline("a"), begin));
        let (_, next) = due(&settling, begin);
        assert!(settling.waits_for_answer(&pipeline("b"), begin) && begins(&settling, &pipeline("c"), begin));
        assert_eq!(due(&settling, begin).1, next);
    }

    #[test]
    fn the_broker_is_asked_for_what_is_new_when_the_status_is_told() {
        let (settling, begin) = (Settling::default(), Instant::now());
        let a = pipeline("a");
        assert!(settling.may_ask("a", false, begin), "nothing was written: a restart");
        assert!(!settling.may_ask("a", true, begin));
        settling.wrote(begin);
        assert!(begins(&settling, &a, begin));
        let almost = begin + LULL / 2;
        assert!(!settling.may_ask("a", false, almost));
        // Trap: at the same moment both say the same, or a status would be told of what nobody has asked for.
        for now in [begin + LULL, begin + LONG] {
            assert!(settling.may_ask("a", true, now));
        }
        assert!(!still(&settling, &a, begin + LULL));
    }

    #[test]
    fn a_status_waits_once_for_the_brokers_answer_whatever_comes_meanwhile() {
        let (settling, begin) = (Settling::default(), Instant::now());
        let a = pipeline("a");
        assert!(begins(&settling, &a, begin));
        assert!(settling.waits_for_answer(&a, begin + LULL));
        // Another camera comes, and somebody writes children all the time.
        let between = begin + LULL + LULL / 2;
        settling.wrote(between);
        assert!(!settling.may_ask("a", true, between));
        assert!(begins(&settling, &a, between));
        assert_eq!(due(&settling, between), (vec![], Some(LULL / 2)));
        let then = begin + 2 * LULL;
        assert_eq!(due(&settling, then), (vec!["a".into()], None));
        assert!(settling.may_ask("a", false, then));
        assert!(!settling.waits_for_answer(&a, then), "it is told now");
        // The next one is a row of its own.
        assert!(settling.waits_for_answer(&a, then));
        assert!(!still(&settling, &a, then + LULL));
    }

    #[test]
    fn where_children_are_written_all_the_time_those_that_have_waited_long_take_turns() {
        let (settling, begin) = (Settling::default(), Instant::now());
        let all = ["a", "b", "c"].map(pipeline);
        for second in 0..LONG.as_secs() {
            let now = begin + Duration::from_secs(second);
            settling.wrote(now);
            for (whose, later) in all.iter().zip([2, 1, 900]) {
                assert!(begins(&settling, whose, now + milliseconds(later)), "{second} {whose:?}");
            }
            assert_eq!(due(&settling, now + milliseconds(900)).0, [""; 0], "{second}");
        }
        let now = begin + LONG + milliseconds(2);
        settling.wrote(now);
        // The one that has waited longest, then the next; not the one that has waited less.
        assert_eq!(due(&settling, now), (vec!["b".into()], Some(TURN)));
        assert!(settling.may_ask("b", true, now) && !settling.may_ask("a", true, now));
        assert!(!begins(&settling, &all[1], now) && begins(&settling, &all[0], now));
        let now = now + TURN;
        assert_eq!(due(&settling, now), (vec!["a".into()], Some(TURN)));
        assert_eq!(due(&settling, now + TURN), (vec![], Some(milliseconds(900 - 2 - 2 * 50))));
        assert!(begins(&settling, &all[1], now), "the next row");
    }

    #[test]
    fn nobody_looks_at_children_before_the_watches_have_seen_them() {
        let (settling, begin) = (Settling::default(), Instant::now());
        assert_eq!(settling.echo("a", false, begin), None, "nothing was written");
        assert_eq!(settling.echo("a", true, begin), Some(ECHO));
        assert_eq!(settling.echo("b", false, begin), None, "another object");
        assert_eq!(settling.echo("a", false, begin + ECHO / 4), Some(ECHO / 4 * 3));
        assert_eq!(settling.echo("a", false, begin + ECHO), None);
        assert_eq!(settling.echo("a", false, begin), None, "it has been seen");
    }

    #[test]
    fn what_is_new_waits_for_whom_it_may_concern() {
        let (settling, begin) = (Settling::default(), Instant::now());
        let camera = ObjectRef { namespace: "n".into(), name: "lobby".into(), uid: "camera".into() };
        let camera = Whose::Camera(camera);
        assert!(begins(&settling, &camera, begin));
        assert_eq!(settling.due(begin + LULL).0, std::slice::from_ref(&camera));
        assert!(!begins(&settling, &camera, begin + LULL));
    }

    #[test]
    fn who_was_deleted_while_he_was_looked_at_is_forgotten() {
        let (settling, begin) = (Settling::default(), Instant::now());
        settling.forget("a");
        assert!(begins(&settling, &pipeline("a"), begin));
        settling.echo("a", true, begin);
        assert_eq!(due(&settling, begin + LULL), (vec!["a".into()], None));
        // Others come and go.
        for _ in 0..2 {
            assert!(begins(&settling, &pipeline("b"), begin + FORGOTTEN + LULL));
            settling.due(begin + FORGOTTEN + LULL);
        }
        let state = settling.state();
        assert_eq!(state.waiting.keys().collect::<Vec<_>>(), ["b"]);
        assert!(state.echoes.is_empty());
    }

    /// Nothing else brings them back: without it a status would never come.
    #[tokio::test]
    async fn those_that_wait_are_enqueued_when_their_time_has_come() {
        let (triggers, mut queues) = watch::queues();
        let settling = Arc::new(Settling::default());
        let waker = tokio::spawn({
            let settling = settling.clone();
            async move { settling.wake(&triggers).await }
        });
        for round in 0..2 {
            // It sleeps, for nobody waits.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let camera = ObjectRef { namespace: "n".into(), name: "lobby".into(), uid: format!("c{round}") };
            settling.begin(&Whose::Camera(camera), Instant::now());
            assert!(settling.waits_for_answer(&pipeline("a"), Instant::now()));
            let began = Instant::now();
            let woken = async {
                use futures::StreamExt;
                let camera = queues.cameras.next().await.expect("open");
                let pipeline = queues.pipelines.next().await.expect("open");
                (camera.name, pipeline.name)
            };
            let woken = tokio::time::timeout(LULL * 3, woken).await.expect("both are enqueued");
            assert_eq!(woken, ("lobby".into(), "a".into()));
            assert!(began.elapsed() + TURN >= LULL, "{:?}", began.elapsed());
            assert!(!settling.waits(&pipeline("a"), Instant::now()));
        }
        waker.abort();
    }
}
