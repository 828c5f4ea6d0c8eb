use super::*;

const TIMING: Timing = Timing {
    lease_duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry_period: Duration::from_secs(2),
};

/// The API server's side: one Lease, versioned.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
}

impl Server {
    /// What an API server does with a write: refuses it unless it knows the newest version.
    fn write(&mut self, step: &Step) -> bool {
        let current = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        let lease = match step {
            Step::Wait { .. } => return false,
            Step::Create(lease) if self.lease.is_none() => lease,
            Step::Replace(lease) if lease.metadata.resource_version == current => lease,
            Step::Create(_) | Step::Replace(_) => return false,
        };
        self.version += 1;
        let mut lease = (**lease).clone();
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease);
        true
    }

    fn spec(&self) -> LeaseSpec {
        self.lease.clone().unwrap().spec.unwrap()
    }
}

struct Bed {
    server: Server,
    start: Instant,
}

impl Bed {
    fn new() -> Self {
        Self { server: Server::default(), start: Instant::now() }
    }

    /// One attempt of `candidate` at this second; whether it holds the Lease then.
    fn attempt(&mut self, candidate: &mut Candidate, second: u64) -> bool {
        let lease = self.server.lease.clone();
        let step = candidate.look(lease.as_ref(), self.at(second), time(second));
        self.server.write(&step)
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }
}

fn time(second: u64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second as i64).unwrap()
}

fn candidates() -> (Candidate, Candidate) {
    (Candidate::new("a".to_owned(), TIMING), Candidate::new("b".to_owned(), TIMING))
}

#[test]
fn the_first_one_gets_it_and_keeps_it() {
    let (mut bed, (mut a, mut b)) = (Bed::new(), candidates());
    assert!(bed.attempt(&mut a, 0));
    let first = bed.server.spec();
    assert_eq!((first.holder_identity.as_deref(), first.lease_duration_seconds), (Some("a"), Some(15)));
    assert_eq!(first.lease_transitions, Some(0));
    for second in (2..60).step_by(2) {
        assert!(bed.attempt(&mut a, second), "renewal at {second}s");
        assert!(!bed.attempt(&mut b, second), "at {second}s");
    }
    let later = bed.server.spec();
    assert_eq!((later.acquire_time, later.lease_transitions), (first.acquire_time, Some(0)));
    assert_eq!(later.renew_time, Some(MicroTime(time(58))));
}

#[test]
fn a_silent_holder_is_replaced_after_the_lease_duration_and_not_before() {
    let (mut bed, (mut a, mut b)) = (Bed::new(), candidates());
    assert!(bed.attempt(&mut a, 0));
    assert!(!bed.attempt(&mut b, 5), "seen first at 5s");
    assert!(!bed.attempt(&mut b, 19));
    assert!(bed.attempt(&mut b, 20));
    let spec = bed.server.spec();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(1)));
    assert_eq!(spec.acquire_time, Some(MicroTime(time(20))));
    assert!(!bed.attempt(&mut a, 21), "who was replaced is no holder any more");
}

/// A clock that is wrong by hours must not make a second writer.
#[test]
fn the_time_in_the_lease_decides_nothing() {
    let (mut bed, (mut a, mut b)) = (Bed::new(), candidates());
    assert!(bed.attempt(&mut a, 0));
    let renewed = bed.server.lease.as_mut().unwrap().spec.as_mut().unwrap();
    renewed.renew_time = Some(MicroTime(Timestamp::UNIX_EPOCH));
    assert!(!bed.attempt(&mut b, 1));
}

#[test]
fn of_two_that_find_it_free_one_gets_it() {
    let (mut bed, (mut a, mut b)) = (Bed::new(), candidates());
    let steps = [a.look(None, bed.at(0), time(0)), b.look(None, bed.at(0), time(0))];
    assert_eq!(steps.map(|step| bed.server.write(&step)), [true, false]);

    let expired = bed.server.lease.clone();
    let (mut b, mut c) = (b, Candidate::new("c".to_owned(), TIMING));
    for candidate in [&mut b, &mut c] {
        assert!(matches!(candidate.look(expired.as_ref(), bed.at(1), time(1)), Step::Wait { .. }));
    }
    let steps = [&mut b, &mut c].map(|it| it.look(expired.as_ref(), bed.at(30), time(30)));
    assert_eq!(steps.map(|step| bed.server.write(&step)), [true, false]);
}

#[test]
fn what_is_handed_back_is_taken_at_once() {
    let (mut bed, (mut a, mut b)) = (Bed::new(), candidates());
    assert!(bed.attempt(&mut a, 0));
    assert!(!bed.attempt(&mut b, 1));
    let lease = bed.server.lease.clone().unwrap();
    assert_eq!(b.hand_back(&lease, time(2)), None, "it is not b's to give");
    let back = a.hand_back(&lease, time(2)).unwrap();
    assert!(bed.server.write(&Step::Replace(Box::new(back))));
    assert_eq!(bed.server.spec().holder_identity.as_deref(), Some(""));
    assert!(bed.attempt(&mut b, 3));
}

/// A container that was started again in the same Pod has the name of the process before it, which is gone.
#[test]
fn a_restarted_holder_goes_on() {
    let (mut bed, (mut a, _)) = (Bed::new(), candidates());
    assert!(bed.attempt(&mut a, 0));
    let mut again = Candidate::new("a".to_owned(), TIMING);
    assert!(bed.attempt(&mut again, 1));
}

#[test]
fn a_reign_ends_by_itself() {
    let start = Instant::now();
    let reign = Reign::Until(start + TIMING.renew_deadline);
    assert!(reign.holds(start + Duration::from_secs(9)));
    assert!(!reign.holds(start + Duration::from_secs(10)));
    assert!(!Reign::No.holds(start));
    assert!(Reign::Always.holds(start));
}
