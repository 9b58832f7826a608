"""A vendor's bill is read exactly, or refused with the lines that can't be."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import SpecError, UsageError
from batchrun.steering.bill import Bill, read_bill

D = Decimal
PATH = Path("november.csv")


def read(text: str | bytes, **columns: str) -> Bill:
    return read_bill(text.encode() if isinstance(text, str) else text, PATH, **columns)


def refused(text: str | bytes) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(text)
    assert caught.value.code == "bill"
    return [str(problem) for problem in caught.value.problems]


def test_each_request_has_its_amount() -> None:
    bill = read("request_id,amount\nr-1,0.004\nr-2,1.2E-5\n")
    assert bill.amounts == {"r-1": D("0.004"), "r-2": D("0.000012")}
    assert (bill.currency, bill.lines, bill.without_id) == (None, 2, 0)


def test_lines_of_one_request_are_added() -> None:
    assert read("request_id,amount\nr,0.1\nr,0.2\nr,-0.05\n").amounts == {"r": D("0.25")}


@given(amounts=st.lists(st.decimals(0, 1000, places=12), min_size=1, max_size=30))
def test_sums_are_exact(amounts: list[Decimal]) -> None:
    lines = "".join(f"r,{amount:f}\n" for amount in amounts)
    assert read(f"request_id,amount\n{lines}").amounts == {"r": sum(amounts)}


def test_what_is_finer_than_money_is_rounded_once_half_to_even() -> None:
    bill = read("request_id,amount\na,0.0000000000005\na,0.000000000001\nb,0.0000000000025\n")
    assert bill.amounts == {"a": D("2e-12"), "b": D("2e-12")}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    lines = [["time", "request_id", "amount"], ["1", "r", "0.5"]]
    assert read("\n".join(delimiter.join(line) for line in lines)).amounts == {"r": D("0.5")}


def test_a_delimiter_inside_of_another_column_misleads_nobody() -> None:
    assert read("request_id;amount;a,b,c,d,e\nr;0.5;x").amounts == {"r": D("0.5")}


def test_a_byte_order_mark_and_windows_lines_are_no_part_of_it() -> None:
    assert read(b"\xef\xbb\xbfrequest_id,amount\r\nr,0.5\r\n").amounts == {"r": D("0.5")}


@pytest.mark.parametrize("header", ["Request ID,Amount", "requestId,AMOUNT", " request_id , amount "])
def test_columns_are_found_apart_from_case_and_punctuation(header: str) -> None:
    assert read(f"{header}\nr,0.5\n").amounts == {"r": D("0.5")}


def test_columns_can_be_named() -> None:
    bill = read("Call,Pretax amount (USD)\nr,0.5\n", id_column="Call", amount_column="pretax amount usd")
    assert bill.amounts == {"r": D("0.5")}


@pytest.mark.parametrize("header", ["id,amount", "Request ID,request-id,amount"])
def test_a_column_that_is_missing_or_ambiguous_is_refused_with_those_that_there_are(header: str) -> None:
    with pytest.raises(UsageError, match="no single column `request_id`") as caught:
        read(f"{header}\n")
    assert caught.value.message.endswith(f"its columns are: {header.replace(',', ', ')}")


def test_lines_without_an_id_are_left_out_and_counted() -> None:
    bill = read("request_id,amount\nr,0.5\n,9.00\n \n,total: 9.50\n")
    assert (bill.amounts, bill.without_id) == ({"r": D("0.5")}, 2)


@pytest.mark.parametrize("amount", ["1,234.56", "1.234,56", "0,0123", "1 234", "1\u00a0234", "1'234"])
def test_separators_are_refused_not_guessed(amount: str) -> None:
    [problem] = refused(f'request_id,amount\nr-1,0.5\nr-2,"{amount}"\n')
    assert problem.startswith("november.csv:3: amount: ")
    assert "without separators of thousands" in problem


@pytest.mark.parametrize("amount", ["$0.01", "0.01 USD", "", "abc", "NaN", "Infinity", "1e999", "٣"])
def test_what_is_no_amount_is_refused(amount: str) -> None:
    [problem] = refused(f"request_id,amount\nr,{amount}\n")
    assert "november.csv:2: amount: " in problem
    assert "is not an amount" in problem


def test_every_bad_line_is_named() -> None:
    problems = refused('request_id,amount,note\nr,x,\nr,1\n"r","y","a\nb"\nr,z,\n')
    assert [problem.split(": ")[0] for problem in problems] == [f"november.csv:{line}" for line in (2, 3, 4, 6)]


@pytest.mark.parametrize("amount", ["-0.01", "9000000.01"])
def test_a_request_costs_neither_less_than_nothing_nor_millions(amount: str) -> None:
    assert "the lines of request r add up to" in refused(f"request_id,amount\nr,{amount}\n")[0]


def test_the_currency_is_read_where_there_is_one() -> None:
    assert read("request_id,amount,Currency\nr,1,USD\ns,2,USD\n").currency == "USD"


def test_two_currencies_are_refused() -> None:
    [problem] = refused("request_id,amount,currency\nr,1,USD\ns,2,CNY\n")
    assert problem.startswith("november.csv:3: currency: ")


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfer\x00", b"request_id,amount\nr\xe9,1\n"])
def test_what_is_no_text_is_refused(content: bytes) -> None:
    assert len(refused(content)) == 1


def test_an_open_quote_is_refused_with_its_line() -> None:
    assert refused('request_id,amount\nr,1\n"s,2\n')[0].startswith("november.csv:3: can't be read as CSV")
