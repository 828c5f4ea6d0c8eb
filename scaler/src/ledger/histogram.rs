//! Histograms as they come and as they are added up.

/// How many observations fell into each of `N` buckets, the last one above all bounds; not cumulative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets<const N: usize> {
    /// Per bucket.
    pub counts: [u64; N],
    /// The sum of all observations, in microseconds.
    pub sum_us: u64,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self { counts: [0; N], sum_us: 0 }
    }
}

impl<const N: usize> Buckets<N> {
    /// How many observations there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// What came since `last`.
    pub(super) fn since(&self, last: &Self) -> Self {
        let mut news = Self { counts: [0; N], sum_us: self.sum_us.saturating_sub(last.sum_us) };
        for ((new, now), last) in news.counts.iter_mut().zip(self.counts).zip(last.counts) {
            *new = now.saturating_sub(last);
        }
        news
    }

    pub(super) fn add(&mut self, news: &Self) {
        self.sum_us = self.sum_us.saturating_add(news.sum_us);
        for (count, new) in self.counts.iter_mut().zip(news.counts) {
            *count = count.saturating_add(new);
        }
    }
}
