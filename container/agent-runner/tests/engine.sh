#!/bin/sh
# An engine for tests: it does what the first line on its stdin says. Its own arguments are "$@".
read -r order
eval "$order"
