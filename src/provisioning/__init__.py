"""Receives Scalekit's directory webhooks and keeps an application's users and groups as its customers' directories say."""
