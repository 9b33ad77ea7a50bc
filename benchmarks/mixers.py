"""All mixers in one place: a table of costs, and a study of scores."""

import argparse

import study

from mmengine_agent.run.exit import run_tool


def main() -> None:
    parser = argparse.ArgumentParser()
    study.add_flags(parser)
    study.study(parser.parse_args())


if __name__ == "__main__":
    run_tool(main)
