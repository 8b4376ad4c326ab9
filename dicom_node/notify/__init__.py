"""Tell the world outside what happened here: webhooks and e-mail for people, audit messages over syslog."""
