//! What an HTTPScaledObject or InterceptorRoute says of the requests that it is about.

use std::time::Duration;

/// A route's name on the link: the first eight bytes, big endian, of SHA-256 of `<kind>/<namespace>/<name>`.
/// Every scaler replica gives the same one, so a worker that hears several never has to translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u64);

/// Which object a route was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `HTTPScaledObject.http.keda.sh/v1alpha1`.
    HttpScaledObject,
    /// `InterceptorRoute.http.keda.sh/v1beta1`.
    InterceptorRoute,
}

/// A route as the scaler sends it: already valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// The route's name on the link.
    pub id: RouteId,
    /// The object that it was made from.
    pub kind: Kind,
    /// That object's namespace.
    pub namespace: Box<str>,
    /// That object's name.
    pub name: Box<str>,
    /// That object's `metadata.generation`, 0 where there is none. The higher of two versions stands.
    pub generation: u64,
    /// That object's `metadata.creationTimestamp`, seconds since 1970. The older of two routes wins a tie.
    pub created: i64,
    /// Any of these selects the request. None: the route is selected by its cluster alone.
    pub rules: Vec<Rule>,
    /// The Envoy cluster that is the target.
    pub cluster: ClusterPattern,
    /// How long a request may be held; `None`: as long as the gateway's own limit says.
    pub hold_timeout: Option<Duration>,
    /// How many requests one worker may hold; `None`: as many as the gateway's own limit says.
    pub max_held: Option<u32>,
}

/// One way to select a request: host and path and headers all have to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Any of these; none: any host.
    pub hosts: Vec<HostPattern>,
    /// Prefixes by whole segments, any of these; none: any path.
    pub paths: Vec<Box<[u8]>>,
    /// All of these.
    pub headers: Vec<HeaderRule>,
}

/// A host that a rule names. Lower case, without port and trailing dot: [`HostPattern::parse`] sees to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host and no other.
    Exact(Box<[u8]>),
    /// `*.` and then this: any number of labels in front, at least one.
    Wildcard(Box<[u8]>),
    /// Every host.
    Any,
}

/// A header that a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderRule {
    /// In lower case.
    pub name: Box<[u8]>,
    /// Compared byte by byte with each of the header's values; `None`: the header has to be there.
    pub value: Option<Box<[u8]>>,
}

/// Names of Envoy clusters: all of them are the same target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterPattern {
    /// What a name begins with.
    pub prefix: Box<[u8]>,
    /// What it ends with, with anything but `|` between the two; `None`: the name is the prefix.
    pub suffix: Option<Box<[u8]>>,
}

impl ClusterPattern {
    /// Whether `cluster` is one of these.
    pub fn matches(&self, cluster: &[u8]) -> bool {
        match &self.suffix {
            None => *self.prefix == *cluster,
            Some(suffix) => cluster
                .strip_prefix(&*self.prefix)
                .and_then(|rest| rest.strip_suffix(&**suffix))
                .is_some_and(|subset| !subset.contains(&b'|')),
        }
    }
}
