//! The plugins that share a VM.
//!
//! A VM normally runs one. While its configuration is being replaced it runs two, the old one until its last
//! request has ended: each keeps its own requests, links and counts.

use crate::{
    config::Config,
    host::{Host, Level, StreamToken},
    plugin::Plugin,
    recall::Shape,
};

/// What becomes of a request's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// They go on to the next filter.
    Continue,
    /// They wait for [`Host::resume`].
    Pause,
}

/// All state of a VM.
#[derive(Default)]
pub struct Vm {
    plugins: Vec<(u32, Plugin)>,
    /// The context created last, and its plugin: Envoy creates a request's context right before it gives its
    /// headers, so this saves keeping one for every request.
    created: Option<(u32, u32)>,
}

// === impl Vm ===

impl Vm {
    /// A plugin has got its configuration. False rejects it: Envoy goes on with the one before.
    pub fn configure(&mut self, root: u32, config: &[u8], host: &mut impl Host) -> bool {
        match Config::parse(config) {
            Ok(config) => {
                self.plugins.retain(|(id, _)| *id != root);
                self.plugins.push((root, Plugin::start(root, config, host)));
                true
            }
            Err(error) => {
                host.log(Level::Error, &format!("sluice: {error}"));
                false
            }
        }
    }

    /// A context was created: a plugin's own if it has no parent, else a request's.
    pub fn create(&mut self, context: u32, parent: u32) {
        if parent != 0 {
            self.created = Some((context, parent));
        }
    }

    /// A request's headers have come.
    pub fn request_headers(&mut self, context: u32, shape: Shape, host: &mut impl Host) -> Action {
        let root = self.created.take().filter(|(created, _)| *created == context).map(|(_, root)| root);
        let mut plugins = self.plugins.iter_mut();
        let plugin = match root {
            Some(root) => plugins.find(|(id, _)| *id == root),
            None => plugins.next_back(),
        };
        plugin.map_or(Action::Continue, |(_, plugin)| plugin.request_headers(context, shape, host))
    }

    /// A response's headers have come.
    pub fn response_headers(&mut self, context: u32, shape: Shape, host: &mut impl Host) {
        for (_, plugin) in &mut self.plugins {
            plugin.response_headers(context, shape, host);
        }
    }

    /// A context is gone: a request's, or a plugin's own. The host ends a plugin's links itself.
    pub fn delete(&mut self, context: u32, host: &mut impl Host) {
        for (_, plugin) in &mut self.plugins {
            plugin.ended(context, host);
        }
        self.plugins.retain(|(root, _)| *root != context);
    }

    /// A plugin's tick.
    pub fn tick(&mut self, root: u32, host: &mut impl Host) {
        if let Some(plugin) = self.plugin(root) {
            plugin.tick(host);
        }
    }

    /// A scaler has sent a message; `None` if it could not be read.
    pub fn link_message(
        &mut self,
        root: u32,
        stream: StreamToken,
        message: Option<&[u8]>,
        host: &mut impl Host,
    ) {
        if let Some(plugin) = self.plugin(root) {
            plugin.link_message(stream, message, host);
        }
    }

    /// A link has ended, with that gRPC status.
    pub fn link_closed(&mut self, root: u32, stream: StreamToken, status: u32, host: &mut impl Host) {
        if let Some(plugin) = self.plugin(root) {
            plugin.link_closed(stream, status, host);
        }
    }

    fn plugin(&mut self, root: u32) -> Option<&mut Plugin> {
        self.plugins.iter_mut().find(|(id, _)| *id == root).map(|(_, plugin)| plugin)
    }
}
