use super::*;
use crate::reach::Obstacle;

/// A search, and what it wants: `look a`, `call b`, `over ...`.
struct Case {
    search: Search,
    attempts: BTreeMap<String, AttemptId>,
    now: u64,
}

fn config(goal: Goal, addresses: &str) -> SearchConfig {
    SearchConfig {
        goal,
        addresses: addresses.split(' ').map(str::to_owned).collect(),
        master: None,
        master_is_fresh: false,
        heard: true,
        timeout: Duration::from_secs(10),
    }
}

impl Case {
    fn new(config: SearchConfig) -> Self {
        Self { search: Search::new(Time::ZERO, config), attempts: BTreeMap::new(), now: 0 }
    }

    /// What is wanted since the last look at it.
    fn wants(&mut self) -> String {
        let mut wants = Vec::new();
        while let Some(output) = self.search.poll_output() {
            wants.push(match output {
                SearchOutput::Look { attempt, address } => {
                    let text = format!("look {address}");
                    self.attempts.insert(address, attempt);
                    text
                }
                SearchOutput::Call { attempt, address } => {
                    let text = format!("call {address}");
                    self.attempts.insert(address, attempt);
                    text
                }
                SearchOutput::Over(Found::Answer { address, ambiguous, .. }) => match ambiguous {
                    None => format!("over: {address} answered"),
                    Some(lost) => format!("over: {address} answered, ambiguous: {lost}"),
                },
                SearchOutput::Over(Found::Nothing { maybe_applied, absent, waited, reason }) => {
                    let maybe = if maybe_applied { "maybe applied, " } else { "" };
                    let absent = if absent { "absent, " } else { "" };
                    format!("over: {maybe}{absent}{} ms, {reason}", waited.as_millis())
                }
            });
        }
        wants.join(", ")
    }

    fn answer(&mut self, address: &str, answer: Answer) -> String {
        let attempt = self.attempts[address];
        self.search.handle(Time::from_millis(self.now), attempt, answer);
        self.wants()
    }

    fn elsewhere(&mut self, address: &str, master: Option<&str>) -> String {
        let problem = Problem::unserved("not the master");
        self.answer(address, Answer::Elsewhere { master: master.map(str::to_owned), problem })
    }

    fn fails(&mut self, address: &str, obstacle: Obstacle) -> String {
        let problem = Problem { obstacle, text: format!("{obstacle:?}").to_lowercase() };
        self.answer(address, Answer::Elsewhere { master: None, problem })
    }

    /// Lets time pass to where the search wants to be asked again.
    fn wait(&mut self) -> String {
        self.now = self.search.poll_timeout().expect("it is not over").as_millis();
        self.search.pass_time(Time::from_millis(self.now));
        self.wants()
    }

    /// Lets time pass until something is wanted.
    fn wait_long(&mut self) -> String {
        loop {
            let wants = self.wait();
            if !wants.is_empty() {
                return wants;
            }
        }
    }
}

#[test]
fn a_read_follows_the_word_of_the_replicas_to_the_master() {
    let mut case = Case::new(config(Goal::Read, "a b c"));
    assert_eq!(case.wants(), "call a");
    assert_eq!(case.elsewhere("a", Some("c")), "call c");
    assert_eq!(case.answer("c", Answer::Done), "over: c answered");
    assert_eq!(case.search.poll_timeout(), None);
}

#[test]
fn a_replica_that_hangs_costs_a_read_a_stagger_and_no_more() {
    let mut case = Case::new(config(Goal::Read, "a b c"));
    assert_eq!(case.wants(), "call a");
    assert_eq!((case.wait(), case.now), ("call b".to_owned(), 250));
    assert_eq!(case.elsewhere("b", None), "call c");
    assert_eq!(case.answer("c", Answer::Done), "over: c answered");
    // Whoever answers first, had it hung or not.
    let mut case = Case::new(config(Goal::Read, "a b"));
    case.wants();
    assert_eq!(case.wait(), "call b");
    assert_eq!(case.answer("a", Answer::Done), "over: a answered");
}

#[test]
fn a_write_is_sent_to_nobody_but_who_has_just_said_that_it_is_the_master() {
    let mut case = Case::new(config(Goal::Once, "a b c"));
    assert_eq!(case.wants(), "look a");
    assert_eq!(case.elsewhere("a", Some("b")), "look b");
    assert_eq!(case.wait(), "look c", "b hangs");
    assert_eq!(case.elsewhere("c", Some("b")), "");
    assert_eq!(case.wait(), "look a");
    assert_eq!(case.elsewhere("a", Some("d")), "look d", "one that nobody knew before");
    assert_eq!(case.answer("d", Answer::Done), "call d");
    assert_eq!(case.answer("d", Answer::Done), "over: d answered");
}

#[test]
fn a_write_goes_to_the_master_at_once_if_that_answered_a_moment_ago() {
    let known = |fresh| SearchConfig {
        master: Some("b".to_owned()),
        master_is_fresh: fresh,
        ..config(Goal::Once, "a b c")
    };
    assert_eq!(Case::new(known(true)).wants(), "call b");
    assert_eq!(Case::new(known(false)).wants(), "look b");
    let read = SearchConfig { goal: Goal::Read, ..known(false) };
    assert_eq!(Case::new(read).wants(), "call b");
}

#[test]
fn a_write_that_must_not_be_repeated_is_waited_for_to_the_end() {
    let mut case = Case::new(config(Goal::Once, "a b"));
    case.wants();
    assert_eq!(case.answer("a", Answer::Done), "call a");
    assert_eq!(case.search.poll_timeout(), Some(Time::from_millis(10_000)));
    assert_eq!(case.wait(), "over: maybe applied, 10000 ms, a: did not answer in time");

    let mut case = Case::new(config(Goal::Once, "a b"));
    case.wants();
    case.answer("a", Answer::Done);
    let lost = Answer::Lost(Problem::unserved("broken"));
    assert_eq!(case.answer("a", lost), "over: maybe applied, 0 ms, a: broken");
}

#[test]
fn a_write_that_had_no_effect_is_sent_again() {
    let mut case = Case::new(config(Goal::Once, "a b"));
    case.wants();
    assert_eq!(case.answer("a", Answer::Done), "call a");
    assert_eq!(case.elsewhere("a", Some("b")), "look b");
    assert_eq!(case.answer("b", Answer::Done), "call b");
    assert_eq!(case.answer("b", Answer::Refused), "over: b answered", "nothing was lost");
}

#[test]
fn a_conditional_write_waits_for_a_master_that_lives_and_is_sent_to_another_where_it_does_not() {
    let mut case = Case::new(config(Goal::Conditional, "a b"));
    case.wants();
    assert_eq!(case.answer("a", Answer::Done), "call a");
    let call = case.attempts["a"];
    assert_eq!((case.wait(), case.now), ("look b".to_owned(), 2_000));
    assert_eq!(case.elsewhere("b", Some("a")), "", "the call is under way there");
    case.attempts.insert("a".to_owned(), call);
    case.now += 3_000;
    assert_eq!(case.answer("a", Answer::Refused), "over: a answered");

    let mut case = Case::new(config(Goal::Conditional, "a b"));
    case.wants();
    case.answer("a", Answer::Done);
    assert_eq!(case.wait(), "look b");
    assert_eq!(case.answer("b", Answer::Done), "call b");
    let refused = Answer::Refused;
    assert_eq!(
        case.answer("b", refused),
        "over: b answered, ambiguous: a did not answer in time",
        "the refusal may be the first one's doing"
    );
}

#[test]
fn while_a_conditional_write_waits_the_others_are_asked_more_and_more_seldom() {
    let mut case = Case::new(config(Goal::Conditional, "a b"));
    case.wants();
    case.answer("a", Answer::Done);
    let mut asked = Vec::new();
    while case.wait_long() == "look b" {
        asked.push(case.now);
        assert_eq!(case.elsewhere("b", Some("a")), "");
    }
    assert_eq!(asked, [2_000, 2_250, 2_500, 3_000, 4_000, 6_000, 8_000]);
    assert_eq!(case.now, 10_000, "its time is over");
}

#[test]
fn a_write_that_was_refused_is_not_sent_again_with_no_time_left_to_hear_of_it() {
    let mut case = Case::new(config(Goal::Once, "a b"));
    case.wants();
    case.answer("a", Answer::Done);
    case.now = 9_800;
    assert_eq!(case.elsewhere("a", None), "look b");
    assert_eq!(case.elsewhere("b", Some("a")), "look a");
    assert_eq!(case.answer("a", Answer::Done), "over: 9800 ms, a, b: not the master");
}

#[test]
fn laps_are_made_with_pauses_that_grow() {
    let mut case = Case::new(config(Goal::Read, "a b"));
    case.wants();
    let mut began = Vec::new();
    for _ in 0..9 {
        assert_eq!(case.elsewhere("a", None), "call b");
        assert_eq!(case.elsewhere("b", None), "");
        assert_eq!(case.wait(), "call a");
        began.push(case.now);
    }
    assert_eq!(began, [5, 15, 35, 75, 155, 315, 565, 815, 1_065]);
    // Two that name each other are not asked without a pause for ever.
    let mut asked = 0;
    let mut at = "a";
    loop {
        let other = if at == "a" { "b" } else { "a" };
        let wants = case.elsewhere(at, Some(other));
        if wants.is_empty() {
            break;
        }
        (asked, at) = (asked + 1, other);
        assert!(asked < 10, "{wants}");
    }
}

#[test]
fn it_is_given_up_where_nobody_is_and_not_where_somebody_was() {
    let mut case = Case::new(SearchConfig { heard: false, ..config(Goal::Once, "a b") });
    let mut wants = case.wants();
    while let Some(address) = wants.strip_prefix("look ") {
        let address = address.to_owned();
        wants = case.fails(&address, Obstacle::Absent);
        if wants.is_empty() {
            wants = case.wait();
        }
    }
    assert!((2_000..2_600).contains(&case.now), "{}", case.now);
    assert_eq!(wants, format!("over: absent, {} ms, a, b: absent", case.now));

    let mut case = Case::new(config(Goal::Read, "a b"));
    let mut wants = case.wants();
    while let Some(address) = wants.strip_prefix("call ") {
        let address = address.to_owned();
        wants = case.fails(&address, Obstacle::Absent);
        if wants.is_empty() {
            wants = case.wait();
        }
    }
    assert_eq!(wants, "over: absent, 10000 ms, a, b: absent");
}

#[test]
fn what_cannot_be_cured_is_told_at_once_beside_whatever_else_is_wrong() {
    let mut case = Case::new(config(Goal::Read, "a b"));
    assert_eq!(case.wants(), "call a");
    assert_eq!(case.fails("a", Obstacle::Lasting), "call b");
    assert_eq!(case.fails("b", Obstacle::Lasting), "over: 0 ms, a, b: lasting");

    // Where another one is down it is waited for if a replica was ever there; if not, once each was tried.
    let mut case = Case::new(SearchConfig { heard: false, ..config(Goal::Read, "a b c") });
    assert_eq!(case.wants(), "call a");
    assert_eq!(case.fails("a", Obstacle::Absent), "call b");
    assert_eq!(case.fails("b", Obstacle::Lasting), "call c");
    assert_eq!(case.fails("c", Obstacle::Absent), "over: 0 ms, b: lasting; a, c: absent");
}

#[test]
fn who_is_master_is_asked_of_each_once() {
    let mut case = Case::new(config(Goal::Find, "a b c"));
    assert_eq!(case.wants(), "look a");
    assert_eq!(case.elsewhere("a", None), "look b");
    assert_eq!(case.fails("b", Obstacle::Absent), "look c");
    assert_eq!(case.elsewhere("c", None), "over: 0 ms, a, c: not the master; b: absent");
    let mut case = Case::new(config(Goal::Find, "a b"));
    case.wants();
    assert_eq!(case.wait_long(), "look b");
    assert_eq!(case.answer("b", Answer::Done), "over: b answered");
}
